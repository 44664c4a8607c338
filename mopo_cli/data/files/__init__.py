"""A user's own files: their layouts, and the way from columns to transitions."""
