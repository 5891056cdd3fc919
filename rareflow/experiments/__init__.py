"""What u tells apart: inputs out of distribution, scores from the T passes, AUROC, and what the gates make of them."""
