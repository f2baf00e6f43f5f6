package crashdisk

import (
	"fmt"
	"math/rand/v2"
	"path"

	"golang.org/x/sys/unix"
)

// Copy makes name on this disk a durable copy of fromName on another disk, or on this
// one, as it is now: a file, or a directory with all below it. It replaces what had the
// name, as restoring a backup does. The directory that holds name must be there. Neither
// disk may be written to meanwhile.
func (d *FS) Copy(name string, from *FS, fromName string) error {
	image := from.Crash(rand.New(rand.NewPCG(0, 0)), KeepAll)
	n, err := image.find(fromName)
	if err != nil {
		return fail("copy", fromName, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.parent(name)
	if err == nil && path.Clean("/"+name) == "/" {
		err = unix.EINVAL
	}
	if err != nil {
		return fail("copy", name, fmt.Errorf("%w", err))
	}
	d.last = max(d.last, image.last)
	// What pends of the name is past.
	for i := range dir.pending {
		kept := dir.pending[i].set[:0:0]
		for _, e := range dir.pending[i].set {
			if e.name != base {
				kept = append(kept, e)
			}
		}
		dir.pending[i].set = kept
	}
	dir.names[base], dir.durable[base] = n, n
	return nil
}
