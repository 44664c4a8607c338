"""Who carries out the jobs of a study, by engines that people already run; no scheduler is written here."""
