foreach(module err buf clock str rng log mem)
    regent_unit_test(test_base_${module} LIBS regent_base)
endforeach()
