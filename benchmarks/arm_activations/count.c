/* A plugin of QEMU that counts the instructions which the guest executes between two of its marks, by kind.

   The guest marks with getpriority(0x4D41524B, tag): tag 0 begins, tag 1 prints the counts since then. Debian ships no
   qemu-plugin.h, so what is used of it is declared here. */

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                                  void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, enum qemu_plugin_op, void *,
                                                       uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                               uint64_t, uint64_t, uint64_t, uint64_t));

int qemu_plugin_version = 1;

enum { GETPRIORITY = 141, MARK = 0x4D41524B };

/* Arm Architecture Reference Manual for A-profile, C7.2: Advanced SIMD, by vector and by element. */
static struct {
  const char *name;
  uint32_t mask, bits;
  uint64_t count;
} kinds[] = {
    {"instructions", 0, 0, 0},
    {"SDOT", 0xBF20FC00, 0x0E009400, 0},
    {"SDOT", 0xBF00F400, 0x0F00E000, 0},
    {"UDOT", 0xBF20FC00, 0x2E009400, 0},
    {"UDOT", 0xBF00F400, 0x2F00E000, 0},
    {"SMMLA", 0xFFE0FC00, 0x4E80A400, 0},
    {"UMMLA", 0xFFE0FC00, 0x6E80A400, 0},
    {"SMLAL", 0xBF20FC00, 0x0E208000, 0},
    {"SMULL", 0xBF20FC00, 0x0E20C000, 0},
    {"FMLA", 0xBFA0FC00, 0x0E20CC00, 0},
    {"FMLA", 0xBF80F400, 0x0F801000, 0},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(instruction), sizeof code);
    for (int k = 0; k < KINDS; k++)
      if ((code & kinds[k].mask) == kinds[k].bits)
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, QEMU_PLUGIN_INLINE_ADD_U64, &kinds[k].count, 1);
  }
}

static void called(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t which, uint64_t tag, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  if (number != GETPRIORITY || (uint32_t)which != MARK) return;
  for (int k = 0; k < KINDS; k++) {
    if (tag) fprintf(stderr, "COUNT %s %llu\n", kinds[k].name, (unsigned long long)kinds[k].count);
    kinds[k].count = 0;
  }
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
