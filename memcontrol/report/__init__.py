"""What people see: tables, progress, plots and pages."""
