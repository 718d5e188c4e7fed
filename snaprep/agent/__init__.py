"""What runs on a database host: started over SSH on stdio, standard library only."""
