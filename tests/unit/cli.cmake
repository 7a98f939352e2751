foreach(module options txn output setup)
    regent_unit_test(test_cli_${module} SOURCES test_cli_${module}.c cli_fixture.c LIBS regent_cli)
endforeach()
