"""Child processes of one installation: started on a leash, kept running, drained and stopped in order."""
