"""What computes each metric, where definitions of its name differ, and why ours was chosen: the words of the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """The prose of one metric.

    Attributes
    ----------
    paper : its equation in the paper's appendix; empty for what the paper does not have.
    by : what computes it.
    differs : where others compute something else under this name, and why ours was chosen.
    """

    paper: str
    by: str
    differs: str


DEFINITIONS = {
    "psnr_rgb": Definition(
        "PSNR",
        "our kernel, as scikit-image has it",
        "Channels are not said in the paper; RGB together is what scikit-image gives and Y what many papers print, up "
        "to 30 dB more on one pair (`psnr_y`). A set's value is the mean of the images' dB, not the dB of the mean "
        "error (torchmetrics' default). Identical images are 100 dB, since a table has no infinity.",
    ),
    "cpsnr": Definition(
        "",
        "our own code",
        "PROBA-V's correction for shift and brightness, of reflectance against a peak of 1 and of all shared bands; "
        "the challenge has one band, 16-bit numbers and a peak of 65535, and prints ratios to a baseline's.",
    ),
    "psnr_y": Definition(
        "",
        "our luma, PSNR by scikit-image",
        "Three lumas are in use: 16 to 235 unrounded (MATLAB's of doubles, EDSR, BasicSR, SwinIR; ours), the same "
        "rounded to 8 bit, and 0 to 255 (pyiqa), which is always 1.32 dB less.",
    ),
    "ssim_rgb": Definition(
        "SSIM",
        "our kernel, as scikit-image has it with every setting of Wang et al. 2004 named",
        "scikit-image's own defaults are a 7x7 uniform window and sample covariances (0.641 for 0.673 on TID2013 I03); "
        "MATLAB's ssim.m and piq halve images from 384 px on; pyiqa takes luma and raises negative terms to 0.",
    ),
    "fsim": Definition(
        "FSIM, eq. 22",
        "our kernel, luminance only, as pyiqa has it",
        "The paper's equation has no chroma, so this is FSIM; pyiqa's and piq's default is FSIMc (`fsimc`). The metric "
        "of this name in image-similarity-measures is another one (0.33 where the authors' code says 0.69). Angles are "
        "counted from the rows' axis, as in pyiqa and piq; MATLAB's code counts from the columns', which of the "
        "highest frequency of an even side takes the other half and moves FSIM by up to 6e-6.",
    ),
    "fsimc": Definition(
        "",
        "our kernel, as pyiqa has it",
        "A negative product of the chromatic similarities has no real power 0.03: the authors' MATLAB code takes the "
        "real part of the complex one, pyiqa and piq the magnitude's, as here; 2e-4 apart on strong noise, nothing on "
        "most pictures.",
    ),
    "lpips_alex": Definition(
        "LPIPS",
        "lpips, version 0.1",
        "The trunk is part of the name, since the paper leaves it open (VGG as an example, AlexNet in its training); "
        "version 0.0 is not comparable.",
    ),
    "lpips_vgg": Definition("LPIPS", "lpips, version 0.1", "As `lpips_alex`."),
    "dists": Definition(
        "DISTS, eq. 23",
        "DISTS-pytorch",
        "Eq. 23 is a sketch; the authors' code is followed, without the shrinking of their demo.",
    ),
    "fid_tf": Definition(
        "FID, eq. 26",
        "torch-fidelity's features; the distance is ours (a small SVD)",
        "The resize to 299 px is the original TensorFlow one, as in the published FID values; pytorch-fid resizes "
        "otherwise (half-pixel bilinear), clean-fid with antialiasing: 225.4 against 220.6 on five pairs. Biased "
        "upwards for few images, so the number of images is part of any value.",
    ),
    "kid_tf": Definition(
        "",
        "torch-fidelity's features; the estimate is ours",
        "All images at once instead of random subsets of 1000, so that no seed enters; not multiplied by 1000.",
    ),
    "fd_dinov2": Definition(
        "",
        "torch-fidelity's features of our DINOv2 network; the distance is `fid_tf`'s",
        "torch-fidelity would fetch DINOv2's code and run it, so the network is ours, laid out as the released "
        "weights. Its resize to 224 px is TensorFlow's; the paper's code resizes bicubically with antialiasing.",
    ),
    "cmmd": Definition(
        "",
        "torch-fidelity's features; the estimate is ours",
        "The paper's unbiased estimate; its code computes the biased one, which is larger by some hundredths at 100 "
        "images. The resize to 336 px is TensorFlow's, the code's bicubic.",
    ),
    "precision_dinov2": Definition(
        "",
        "the features of `fd_dinov2`; balls and counting are ours",
        "Distances in double precision from differences, where torch-fidelity's come from products in the precision of "
        "the features; the paper's own features are VGG16's.",
    ),
    "recall_dinov2": Definition(
        "", "the features of `fd_dinov2`; balls and counting are ours", "As `precision_dinov2`."
    ),
    "niqe": Definition(
        "NIQE, eq. 24",
        "our kernel with the LIVE release's figures, as pyiqa has it",
        "MATLAB's toolbox function has another model (7.2 where LIVE's has 15.8). Luma is YIQ's: BasicSR's YCbCr "
        "is 4e-4 apart, MATLAB's rgb2gray 6e-3 on a heavily distorted picture: they round luma between two levels "
        "otherwise.",
    ),
    "niqe_ref": Definition(
        "",
        "our own code",
        "The published procedure with the references in place of the photographs.",
    ),
    "maniqa_koniq": Definition(
        "MANIQA",
        "pyiqa's network, each distinct crop once",
        "pyiqa's fixed grid of 20 crops and one mean over all patches; the official code has 20 random crops and the "
        "mean of their scores (about 1e-3 from run to run), and stops below 225 px, where pyiqa enlarges.",
    ),
    "maniqa_pipal": Definition(
        "",
        "pyiqa's network, each distinct crop once",
        "As `maniqa_koniq`, with the checkpoint and scale that papers on super-resolution use.",
    ),
    "sam_rgb": Definition(
        "SAM",
        "our own code, in float64",
        "Degrees, not radians (torchmetrics); over bands, not over pixels (sewar); pixels where a spectrum is zero "
        "have no angle and are left out, where torchmetrics gives NaN. An arc tangent instead of an arc cosine keeps "
        "the digits of small angles.",
    ),
    "sam_refl": Definition(
        "SAM", "our own code, in float64", "As `sam_rgb`, of reflectance in all bands that both sides have."
    ),
    "de00": Definition(
        "ΔE00, eq. 28-34",
        "our kernel, as colour-science has it",
        "The paper does not say how RGB becomes Lab: sRGB, D65, 2 degree observer here. D50 moves a photograph's mean "
        "from 15.5 to 15.8.",
    ),
    "d_lambda": Definition(
        "D_λ, eq. 38",
        "our own code",
        "The LR is brought to the fused size, as eq. 38 says; torchmetrics and sewar take it at its own (0.127 for "
        "0.021 on one case). Q has the Gaussian window of SSIM as in torchmetrics; the original has 8x8 uniform.",
    ),
    "d_s": Definition(
        "D_s, eq. 39",
        "our own code",
        "Eq. 39 compares gradients at the fused size (Sobel's here; the paper names none); Alparone's original, in "
        "torchmetrics, compares the bands themselves at two scales. Two metrics of one name.",
    ),
    "qnr": Definition("QNR", "our own code", "With the two above, so not comparable with a QNR of Alparone's D_s."),
    "opensr_reflectance": Definition(
        "",
        "our own code, as opensr-test 1.3.3 has it",
        "A border of 16 px, or the next whole number of LR pixels where the scale does not divide 16 (the package "
        "stops there); bands that all three images have, one included.",
    ),
    "opensr_spectral": Definition("", "our own code, as opensr-test 1.3.3 has it", "As `opensr_reflectance`."),
    "opensr_spatial": Definition(
        "",
        "our own code with scikit-image's phase correlation, as opensr-test 1.3.3 has it",
        "Beyond 5 px the package gives NaN and this a reason. Flat images have a shift of 1.05 px in both.",
    ),
    "opensr_synthesis": Definition(
        "",
        "our own code with scikit-image's phase correlation and histogram matching, as opensr-test 1.3.3 has it",
        "As `opensr_reflectance`.",
    ),
    "opensr_improvement": Definition(
        "",
        "our own code with scikit-image's phase correlation and histogram matching, as opensr-test 1.3.3 has it",
        "The package's defaults are its configuration's (its README and signatures print others); nobody's random "
        "generators are touched. Published values are comparable; the differences of two sensors count as improvement.",
    ),
    "opensr_omission": Definition(
        "",
        "our own code with scikit-image's phase correlation and histogram matching, as opensr-test 1.3.3 has it",
        "As `opensr_improvement`.",
    ),
    "opensr_hallucination": Definition(
        "",
        "our own code with scikit-image's phase correlation and histogram matching, as opensr-test 1.3.3 has it",
        "As `opensr_improvement`.",
    ),
    "opensr_improvement_h": Definition(
        "",
        "our own code",
        "HR is brought to the LR's radiometry by a gain and an offset of each band, the prediction keeps its own, and "
        "the counted pixels are those of LR and HR alone, so that they are the same for every model. Not comparable "
        "with opensr-test's.",
    ),
    "opensr_omission_h": Definition("", "our own code", "As `opensr_improvement_h`."),
    "opensr_hallucination_h": Definition("", "our own code", "As `opensr_improvement_h`."),
    "nll": Definition(
        "NLL, eq. 35",
        "our own code",
        "Eq. 35 is a sum over samples; here it is their mean, which does not grow with the image. Deviations below one "
        "grey level (1/255) are raised to it.",
    ),
    "ece": Definition(
        "ECE, eq. 36-37",
        "our own code",
        "The paper leaves the levels open: 0.05 to 0.95 in steps of 0.05, equal weights. uncertainty-toolbox has 100 "
        "from 0 to 1, both ends included, which are always met and make the number smaller.",
    ),
    "crps": Definition("", "our own code", "The closed form for a Gaussian, not the ensemble's."),
    "ece_fair": Definition(
        "",
        "our own code",
        "ECE of few draws counts their scatter as the model's fault (0.040 for four perfect draws); Student's "
        "quantiles do not. Not comparable with `ece`.",
    ),
    "cover_err_90": Definition(
        "",
        "our own code",
        "Student's interval of the draws; a Gaussian one of four perfect draws holds 76 %, not 90 %.",
    ),
    "spread_skill_err": Definition(
        "",
        "our own code",
        "Root mean variances against root mean squares, the variance (K + 1) / K times (Fortin et al. 2014); the mean "
        "of the deviations, which is smaller, is in use too.",
    ),
    "crps_fair": Definition(
        "",
        "our own code",
        "Ferro's fair form; torchmetrics' is the ensemble's own, 1 + 1/K times as large if calibrated.",
    ),
    "logspec_l1": Definition("", "our own code", "Our own definition; nobody else computes it."),
    "style_colour": Definition(
        "",
        "our own code",
        "Our own definition of what papers call style transfer: 0 stays at LR's colours, 1 arrives at HR's. The best "
        "colour map of bicubic is near 1 and moves neither spectrum nor texture.",
    ),
    "style_spectrum": Definition("", "our own code", "Our own definition, of the spectra of `logspec_l1`."),
    "style_texture": Definition("", "our own code", "Our own definition, of the features of `niqe`."),
    "seams": Definition(
        "", "our own code", "Our own definition; nobody else computes it. 3 to 5 is what images without seams have."
    ),
}
