/* What Rust's standard library takes of bcryptprimitives.dll, for a Wine that has no such library yet: random bytes. */
#include <windows.h>

/* RtlGenRandom of advapi32.dll, under the name that it is exported by. */
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

/* RtlGenRandom takes its length as 32 bits. */
#define AT_ONCE 0x40000000

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    while (length > 0) {
        ULONG part = length > AT_ONCE ? AT_ONCE : (ULONG)length;
        if (!SystemFunction036(buffer, part))
            return FALSE;
        buffer += part;
        length -= part;
    }
    return TRUE;
}
