/* A CUDA driver without a GPU, for tests: device memory is host memory under other addresses, and a
   stream does at once, or records, what it is told. It proves that calls are wired up, in the
   right order and with the right types; nothing about a GPU. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };
static const uint64_t MASK = 0x5A00000000000000ull;

typedef struct { void *to; const void *from; size_t size; void (*work)(void); } Step;
typedef struct { int recording, count; Step steps[MOST]; } Stream;

static int of_env(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
static int add(Stream *stream, Step step) {
    if (!stream) return 400; /* the default stream is never what we want */
    if (stream->recording) {
        if (stream->count == MOST) return 999;
        stream->steps[stream->count++] = step;
    } else if (step.work) step.work();
    else memcpy(step.to, step.from, step.size);
    return 0;
}

static _Thread_local int current = 0; /* whether the calling thread has a context */
#define IN_CONTEXT do { if (!current) return 201; } while (0)

int live = 0; /* allocations, streams and graphs that were not given back */

int cuInit(unsigned flags) {
    current = 0; /* as in a new process, which a test stands for */
    return flags ? 1 : of_env("FAKE_CUDA_INIT", 0);
}
int cuDriverGetVersion(int *version) { *version = of_env("FAKE_CUDA_DRIVER", 12060); return 0; }
int cuDeviceGet(int *device, int index) { *device = 7 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    const char *text = getenv("FAKE_CUDA_NAME");
    strncpy(name, text ? text : "Orin", size);
    return device == 7 ? 0 : 101;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
    int capability = of_env("FAKE_CUDA_CAPABILITY", 87);
    *value = which == 75 ? capability / 10 : which == 76 ? capability % 10 : 0;
    return device == 7 ? 0 : 101;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(intptr_t)(device + 1); return 0; }
int cuCtxSetCurrent(void *context) { current = context == (void *)8; return current ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free_, size_t *total) {
    IN_CONTEXT;
    *free_ = (size_t)of_env("FAKE_CUDA_FREE_MIB", 4096) << 20;
    *total = (size_t)8192 << 20;
    return 0;
}
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    IN_CONTEXT;
    size_t whole = (size + 255) / 256 * 256;  /* aligned as the real one does */
    *address = (uint64_t)(uintptr_t)aligned_alloc(256, whole) ^ MASK; live++; return 0;
}
void *fake_device(uint64_t address) { return (void *)(uintptr_t)(address ^ MASK); }
int cuMemFree_v2(uint64_t address) { IN_CONTEXT; free(fake_device(address)); live--; return 0; }
int cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    IN_CONTEXT;
    *address = malloc(size); live++; return (int)flags;
}
int cuMemFreeHost(void *address) { IN_CONTEXT; free(address); live--; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, Stream *stream) {
    IN_CONTEXT;
    return add(stream, (Step){fake_device(to), from, size, 0});
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, Stream *stream) {
    IN_CONTEXT;
    return add(stream, (Step){to, fake_device(from), size, 0});
}
int fake_enqueue(void (*work)(void), Stream *stream) { return add(stream, (Step){0, 0, 0, work}); }
int cuStreamCreate(Stream **stream, unsigned flags) {
    IN_CONTEXT;
    *stream = calloc(1, sizeof(Stream)); live++; return flags == 1 ? 0 : 1;
}
int cuStreamSynchronize(Stream *stream) { IN_CONTEXT; return stream ? of_env("FAKE_CUDA_SYNC", 0) : 400; }
int cuStreamDestroy_v2(Stream *stream) { IN_CONTEXT; free(stream); live--; return 0; }
int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    IN_CONTEXT;
    stream->recording = 1; stream->count = 0; return mode == 1 ? 0 : 1;
}
int cuStreamEndCapture(Stream *stream, Stream **graph) {
    IN_CONTEXT;
    *graph = malloc(sizeof(Stream)); live++;
    memcpy(*graph, stream, sizeof(Stream));
    stream->recording = 0;
    return 0;
}
int cuGraphInstantiateWithFlags(Stream **made, Stream *graph, unsigned long long flags) {
    IN_CONTEXT;
    *made = malloc(sizeof(Stream)); live++;
    memcpy(*made, graph, sizeof(Stream));
    return (int)flags;
}
int cuGraphLaunch(Stream *graph, Stream *stream) {
    IN_CONTEXT;
    for (int i = 0; i < graph->count; i++) {
        int code = add(stream, graph->steps[i]);
        if (code) return code;
    }
    return 0;
}
int cuGraphExecDestroy(Stream *graph) { IN_CONTEXT; free(graph); live--; return 0; }
int cuGraphDestroy(Stream *graph) { IN_CONTEXT; free(graph); live--; return 0; }
int cuEventCreate(int **event, unsigned flags) {
    IN_CONTEXT;
    *event = calloc(1, sizeof(int)); live++; return (int)flags;
}
int cuEventRecord(int *event, Stream *stream) {
    IN_CONTEXT;
    static int clock = 0; /* a millisecond goes by from event to event */
    *event = ++clock; return stream ? 0 : 400;
}
int cuEventSynchronize(int *event) { IN_CONTEXT; return *event ? 0 : 400; }
int cuEventElapsedTime(float *ms, int *from, int *to) { IN_CONTEXT; *ms = (float)(*to - *from); return 0; }
int cuEventDestroy_v2(int *event) { IN_CONTEXT; free(event); live--; return 0; }
int cuGetErrorName(int code, const char **text) { *text = "CUDA_ERROR"; return 0 * code; }
int cuGetErrorString(int code, const char **text) { *text = "made up"; return 0 * code; }
