package local

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"openvstorage/backend"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"

	"golang.org/x/sys/unix"
)

// Each call on the disk is answered once with each errno, while the store is
// opened and while it is used. What fails says which file and which error, and
// calls none of it damage. What passes ends nothing: the same call, made again,
// succeeds. Afterwards all that was acknowledged is there.
func TestErrnos(t *testing.T) {
	base := crashdisk.New()
	s, ns := open(t, base, "objects", Options{})
	must(t, ns.Put(ctx, "old", pattern(9000, 1)))
	must(t, s.Close())
	for _, errno := range []unix.Errno{unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.ENOSPC, unix.EINTR} {
		for turn := 0; ; turn++ {
			mem := base.Kill()
			fs := faultdisk.New(mem)
			var op faultdisk.Op
			var file string
			rule := fs.Inject(faultdisk.Rule{Ops: faultdisk.Any, Skip: turn, Times: 1, Err: errno, Before: func(o faultdisk.Op, p string) { op, file = o, p }})
			acked := map[string][]byte{"old": pattern(9000, 1)}
			judge := func(err error) {
				if err != nil && (!errors.Is(err, errno) || !strings.Contains(err.Error(), "objects") || errors.Is(err, backend.ErrCorrupt) || errors.Is(err, backend.ErrNotFound)) {
					t.Errorf("%v of %s answered with %v: %v", op, file, errno, err)
				}
			}
			s, err := Open(fs, "objects", Options{})
			judge(err)
			if err == nil {
				ns := s.Namespace("ns")
				try := func(call func() error) bool {
					err := call()
					judge(err)
					if err != nil && op == faultdisk.SyncDir && errno != unix.EMFILE && errno != unix.ENFILE && errno != unix.EACCES {
						return false // P6: the store takes no changes any more
					}
					if err != nil {
						if err = call(); err != nil {
							t.Errorf("%v of %s answered with %v: made again: %v", op, file, errno, err)
						}
					}
					return err == nil
				}
				if try(func() error { return ns.Put(ctx, "new", pattern(5000, 2)) }) {
					acked["new"] = pattern(5000, 2)
				}
				try(func() error { _, err := ns.Get(ctx, "old", make([]byte, 100), 4000); return err })
				if try(func() error { return ns.Delete(ctx, []string{"old"}, nil) }) {
					delete(acked, "old")
				}
				judge(s.Close())
			}
			if rule.Fired() == 0 {
				if turn < 20 {
					t.Errorf("%d calls", turn)
				}
				break
			}
			s, ns := open(t, mem.Kill(), "objects", Options{})
			for name, want := range acked {
				if _, unsure := acked["old"]; unsure && name == "old" && op == faultdisk.SyncDir {
					continue // its delete has failed, and may have happened
				}
				if !bytes.Equal(whole(t, ns, name), want) {
					t.Errorf("%v of %s answered with %v: %s is not what was put", op, file, errno, name)
				}
			}
			must(t, s.Close())
		}
	}
}

// How long a file is says nothing about an object: one that has grown is damaged,
// and takes no memory.
func TestGrownObject(t *testing.T) {
	dir := t.TempDir()
	_, ns := open(t, osdisk.New(), dir, Options{})
	must(t, ns.Put(ctx, "o", pattern(9000, 1)))
	long := pattern(66<<20, 2)
	must(t, ns.Put(ctx, "whole", long))
	must(t, os.Truncate(dir+"/ns/o", 6<<30))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ns.Get(ctx, "o", make([]byte, 100), 0)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, backend.ErrCorrupt) || !strings.Contains(err.Error(), "ns/o") {
		t.Error(err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d bytes of memory to say so", took)
	}
	p := make([]byte, 5000)
	if _, err := ns.Get(ctx, "whole", p, 65<<20); err != nil || !bytes.Equal(p, long[65<<20:][:5000]) {
		t.Errorf("an object with a long table: %v", err)
	}
}
