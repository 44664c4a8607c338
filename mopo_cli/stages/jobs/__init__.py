"""Jobs: the unit in which a study is handed out to other machines."""
