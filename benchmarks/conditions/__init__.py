"""Many conditions in one model: left-out combinations and contexts of real screens, known laws, one model against many, size.

Cases: ``cytof``, ``gbm`` and ``kang`` leave out a perturbation in a context (each in turn); ``simulated`` scores conditional laws
of unseen pairs of drugs, doses and donors against the truth; ``one_model`` compares one model of all conditions with a model for
each; ``scale`` measures 100 conditions.

Every figure is a ratio of sums over what was left out, so that a condition which hardly responds cannot spoil an average with its
noise. Energy distances and errors of means are unbiased estimates and may be below zero. Of the model, each of ten draws takes
one sample for each control, so that predicted cells are as many and as independent as controls are. Principal components are
fitted without what is left out (``--pcs file`` takes those that come with the data, as first measured). *Halfway to the mean shift* is
the model with its mean response replaced by the average of that and the mean shift's, as predictions that err differently are averaged.
"""
