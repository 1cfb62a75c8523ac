/* greenlet 3.5 for CPython 3.13 without the GIL: it calls two functions of the interpreter that 3.13
   exports, but declares in an internal header which greenlet includes from 3.14 on only.
   Build it with CXX="g++ -include tools/critical_sections.h". */
#include <Python.h>
#ifdef __cplusplus
extern "C" {
#endif
void _PyCriticalSection_SuspendAll(PyThreadState *);
void _PyCriticalSection_Resume(PyThreadState *);
#ifdef __cplusplus
}
#endif
