from .membership cimport Configuration
from .progress cimport Progress
from .reconfiguration cimport refusal
from .snapshot cimport highest_purgeable
from .state cimport State

cdef class Views:
    cdef readonly State state
