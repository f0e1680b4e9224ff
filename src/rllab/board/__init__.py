"""What people look at: reports, pages, and the trackers of others."""
