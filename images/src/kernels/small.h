// Each file of the kernel includes this first.
//
// What only the start of the kernel needed is given back when it has started, and Linux fills it with a pattern before. An emulator
// has translated the code there, and looks at each of those writes: that is a sixth of the time to the first process. A pattern that
// is no byte is not written.
#include <linux/poison.h>
#undef POISON_FREE_INITMEM
#define POISON_FREE_INITMEM 0x100
