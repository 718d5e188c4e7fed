"""A volume of plain directories, for hosts without snapshots."""
