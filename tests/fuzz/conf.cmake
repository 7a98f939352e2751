regent_fuzz_target(fuzz_conf LIBS regent_conf)
