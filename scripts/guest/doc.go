// Package guest boots small Linux guests on vDisks, through NBD and through the mount. The tests show that
// virtual machines work, with QEMU's device and block layer and a kernel with its file systems in between.
// QEMU emulates the processor (TCG), so the tests need no KVM. Times are compared only with those of the
// same QEMU on a raw file.
//
//	make e2e-vm
//
// The script prepare makes the kernel, an initramfs of busybox with init and its
// steps, and a Debian root image, and keeps them in a cache directory. Without
// OVS_GUEST in the environment, its path, the tests are left out.
package guest
