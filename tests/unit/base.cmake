foreach(module err buf clock str rng log mem thread)
    regent_unit_test(test_base_${module} LIBS regent_base)
endforeach()
