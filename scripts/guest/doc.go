// Package guest boots small Linux guests on vDisks, through NBD and through the
// mount: the tests are what shows that virtual machines work, with QEMU's own
// device, block layer and a kernel with its file systems in between. QEMU
// emulates the processor (TCG), so that they run where there is no KVM; times
// are compared with those of the same QEMU on a raw file only.
//
//	make e2e-vm
//
// The script prepare makes the kernel, an initramfs of busybox with init and its
// steps, and a Debian root image, and keeps them in a cache directory. Without
// OVS_GUEST in the environment, its path, the tests are left out.
package guest
