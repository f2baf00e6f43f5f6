// Package fusefs is the file door: a FUSE mount in which vDisk NAME is the
// file NAME.raw and the slashes of its name are directories. Snapshots are
// read-only files .snapshots/NAME/SNAP.raw.
//
// A vDisk has at least one cluster, a file may be empty: a file that was
// created, or truncated to nothing, is only an entry of the mount until a
// truncate or a write gives it a size; then the vDisk is made. Sizes are
// rounded up to 4 KiB. Apart from truncation to nothing a vDisk cannot shrink.
//
// All I/O is direct: nothing is kept in the kernel's page cache except for
// mappings, so other front ends of the same vDisk see a write as soon as it
// has returned (rule O9), and fsync means what Device.Flush means.
package fusefs
