"""Everything outside: devices, engines, launchers. Drivers never touch the store or each other."""
