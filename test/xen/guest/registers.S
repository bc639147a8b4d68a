/*
 * A guest that does what a test in dom0 says: it reads commands from registers at CONTROL, which the test serves, and
 * says there what came of them (../registers.ts). Entered as PVH kernels are: 32 bits, flat segments, no paging.
 *   cc -m32 -nostdlib -static -Wl,-N,--build-id=none,-Ttext=0x100000,--section-start=.note.Xen=0x100100 \
 *      -o registers registers.S
 */
#define CONTROL 0xd0010000
#define STACK 0x200000
/* Registers: the command, the address that it is about, the value to write, and what came of it. */
#define COMMAND 0
#define ADDRESS 4
#define VALUE 8
#define RESULT 12

#define XEN_ELFNOTE_PHYS32_ENTRY 18

	.section .note.Xen, "a", @note
	.long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long _start

	.text
	.globl _start
_start:
	movl $STACK, %esp
	movl $CONTROL, %ebx
next:
	pause
	movl COMMAND(%ebx), %edx
	cmpl $commands_end - commands, %edx
	jae next
	testl %edx, %edx
	jz next
	movl ADDRESS(%ebx), %esi
	movl VALUE(%ebx), %eax
	addl $commands, %edx
	call *%edx
	movl %eax, RESULT(%ebx)
	jmp next

/* A command's number is where its code begins, 8 bytes for each. */
	.balign 8
commands:
	ret
	.balign 8
	movzbl (%esi), %eax
	ret
	.balign 8
	movzwl (%esi), %eax
	ret
	.balign 8
	movl (%esi), %eax
	ret
	.balign 8
	movb %al, (%esi)
	ret
	.balign 8
	movw %ax, (%esi)
	ret
	.balign 8
	movl %eax, (%esi)
	ret
	.balign 8
/* Interrupt lines 0-7 that are raised: the request register of the first of the PC's two controllers. */
	movb $0x0a, %al
	outb %al, $0x20
	inb $0x20, %al
	ret
commands_end:
