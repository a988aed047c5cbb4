// plugin.wit in C: its types as they lie in memory (canonical ABI of the component model, 32 bits), and memory to put results
// in. Include it once. Nothing else is needed, no library and no generator:
//
//   clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -Wl,--strip-all -o mine.wasm mine.c
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define DESCRIBE EXPORT("firn:plugin/functions@2.0.0#describe")
#define CALL EXPORT("firn:plugin/functions@2.0.0#call")
#define TEXT(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}

typedef struct { const uint8_t *at; uint32_t length; } text;

enum flat { BOOLEAN, LONG, DOUBLE, STRING, BINARY, DATE, TIMESTAMP, TIMESTAMPTZ, TIME, DECIMAL, JSON, UUID };

typedef struct { bool is_list; uint8_t flat, precision, scale; } data_type;

typedef struct {
    data_type data_type;
    bool has_lists;
    struct {                                                      // has_lists
        _Alignas(4) bool has_validity;
        const uint8_t *validity; uint32_t validity_length;
        const int32_t *offsets; uint32_t offsets_length;
    } lists;
    bool has_validity;
    const uint8_t *validity; uint32_t validity_length;
    const int32_t *offsets; uint32_t offsets_length;
    const uint8_t *values; uint32_t values_length;
} column;

typedef struct { text name, about; data_type data_type; } named_column;

typedef struct {
    enum __attribute__((packed)) { READS_ONE, READS_SEVERAL, READS_NAMED } how;
    union {
        data_type data_type;                                      // one, several
        struct { const named_column *at; uint32_t length; } named;
    };
} reads;

typedef struct {
    text name, about;
    enum __attribute__((packed)) { ARGUMENT_TEXT, ARGUMENT_WHOLE, ARGUMENT_NUMBER, ARGUMENT_FLAG, ARGUMENT_WORDS } type;
    struct { const text *at; uint32_t length; } words;
    bool required;
} argument;

typedef struct {
    text name, about;
    reads reads;
    data_type gives;
    enum __attribute__((packed)) { NULLS_STAY, NULLS_OTHERWISE } nulls;
    text nulls_rule;                                              // otherwise
    text rejects;
    struct { const argument *at; uint32_t length; } arguments;
} function;

typedef struct { const function *at; uint32_t length; } functions;

typedef struct {
    text name;
    enum __attribute__((packed)) { VALUE_TEXT, VALUE_WHOLE, VALUE_NUMBER, VALUE_FLAG } type;
    union { text text; int64_t whole; double number; bool flag; };
} value;

typedef struct {
    bool failed;
    union {
        struct { column column; const uint32_t *rejected; uint32_t rejected_length; } made;
        text error;                                               // failed
    };
} outcome;

_Static_assert(sizeof(column) == 56 && offsetof(column, has_validity) == 28, "the canonical ABI");
_Static_assert(sizeof(data_type) == 4 && sizeof(named_column) == 20 && sizeof(reads) == 12, "the canonical ABI");
_Static_assert(sizeof(argument) == 32 && sizeof(function) == 60 && offsetof(function, nulls) == 32, "the canonical ABI");
_Static_assert(sizeof(value) == 24 && sizeof(outcome) == 68, "the canonical ABI");

// Whether a value is there: that of a row, or in a column of lists that element.
static inline bool has_value(const column *column, uint32_t number) {
    return !column->has_validity || column->validity[number / 8] >> (number % 8) & 1;
}

// Whether a row of a column of lists has a list.
static inline bool has_list(const column *column, uint32_t row) {
    return !column->lists.has_validity || column->lists.validity[row / 8] >> (row % 8) & 1;
}

// Memory is handed out once and never taken back: the instance ends with the call.
static inline void *take(size_t bytes, size_t align) {
    extern uint8_t __heap_base;
    static uintptr_t next;
    if (next == 0) next = (uintptr_t)&__heap_base;
    uintptr_t start = (next + align - 1) & ~(uintptr_t)(align - 1);
    size_t have = __builtin_wasm_memory_size(0) << 16;
    if (start + bytes < start) __builtin_trap();
    next = start + bytes;
    if (next > have && __builtin_wasm_memory_grow(0, (next - have + 0xffff) >> 16) == (size_t)-1) __builtin_trap();
    return (void *)start;
}

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t before, size_t align, size_t after) {
    uint8_t *new = take(after, align < 16 ? 16 : align);          // bytes may be numbers of up to 16 bytes
    for (size_t i = 0; i < before && i < after; i++) new[i] = ((uint8_t *)old)[i];
    return new;
}
