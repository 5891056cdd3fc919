"""The expert study: what people say of captions and of images, as scores beside the metrics'.

=============  ========================================================================================================
``plan``       the typed records: what is shown to whom and asked, fixed and hashed before the first answer; and the key
``design``     who sees what: balanced blocks, repeats, catch trials, sides and order
``create``     from finished runs to a study's folder
``store``      the answers, in SQLite: append-only, one commit an answer
``server``     the pages, for reviewers; needs the plan and never the key
``votes``      answers and key put together, once the study is closed
``crossed``    means over reviewers x scenes, and equivalence
``agreement``  Krippendorff's alpha, Fleiss' kappa, Gwet's AC1
``strength``   Bradley-Terry
``trust``      which metric agrees with the votes
``report``     all of it, in Markdown, LaTeX and JSON; the methods paragraph; ``figure`` draws it
``columns``    votes as columns of ``rfbench table``
=============  ========================================================================================================
"""
