"""From a study's recorded results to tables, figures and a report; trains and evaluates nothing."""
