package writebuffer

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"openvstorage/internal/disk/osdisk"
	"openvstorage/tlog"
)

// grown is what a file has become, sparse, on the host's disk.
const grown = 6 << 30

// A TLog that has grown is read as far as it is one, an SCO that has is refused by
// name; neither goes into memory.
func TestRecoverGrownFiles(t *testing.T) {
	opt := bufferOptions(osdisk.New())
	opt.Dir = t.TempDir()
	r := &rig{t: t, vol: newVolume(testVolume), ctx: context.Background(), changed: make(chan struct{}, 1), pressed: make(chan struct{}, 1)}
	open := func() *Recovered {
		t.Helper()
		var err error
		if r.buf, err = Open(opt); err != nil {
			t.Fatal(err)
		}
		found, err := r.buf.Recover(r.vol.recoverOptions())
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	r.resume(open())
	r.write(1, 2, 1)
	r.commit()
	loc, _ := r.vol.at(1)
	names := []string{r.log.section.inside.tl.name, r.log.folder.scoPath(loc.Number())}
	id := r.log.section.inside.tl.ID
	r.close()
	for _, name := range names {
		was, err := os.Stat(name)
		if err := errors.Join(err, os.Truncate(name, grown)); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		found := open()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
			t.Errorf("%s: %d MiB of memory", name, n>>20)
		}
		if name == names[0] {
			if found.Reached != 1 || found.Durable != 1 || found.Damage != nil {
				t.Errorf("a TLog that has grown: %+v", found)
			}
			if entries, err := r.buf.LocalTLog(r.vol.recoverOptions(), id, 1); err != nil || len(entries) != 1 || entries[0].Kind != tlog.KindWrite {
				t.Errorf("%v, %v", entries, err)
			}
		} else if found.Damage == nil || !strings.Contains(found.Damage.Error(), name) || !strings.Contains(found.Damage.Error(), "6442450944 bytes") {
			t.Errorf("an SCO that has grown: %v", found.Damage)
		}
		if err := errors.Join(found.Release(), r.buf.Close(), os.Truncate(name, was.Size())); err != nil {
			t.Error(err)
		}
	}
	r.resume(open())
	r.check(1, 2, 1)
	r.close()
}

// What a restart finds is cut into TLogs that are read and uploaded as a whole, each
// with all data of its SCOs.
func TestParts(t *testing.T) {
	r := newRig(t)
	end := r.fill(0, 4, 1)
	for range 50 {
		if _, err := r.log.AppendEntry(r.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: 1 << 30, Run: 1}); err != nil {
			t.Fatal(err)
		}
	}
	r.commit()
	next := prepareRig(t, r.under.Kill(), r.vol.copy())
	found, err := next.buf.Recover(next.vol.recoverOptions())
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 2000, 8000, 1 << 20} {
		seq, n := uint64(1), 0
		where := map[uint64]int{} // SCO -> part
		for part := range parts(found.Entries, size) {
			n++
			for _, e := range part {
				if e.Seq != seq {
					t.Fatalf("parts of %d bytes: seq %d, %d was to follow", size, e.Seq, seq)
				}
				seq++
				if e.Kind != tlog.KindWrite {
					continue
				}
				if p, ok := where[uint64(e.Location.Number())]; ok && p != n {
					t.Fatalf("parts of %d bytes: %s is in parts %d and %d", size, e.Location.Number().Name(), p, n)
				}
				where[uint64(e.Location.Number())] = n
			}
		}
		if seq != found.Reached+1 || size == 1 && n < len(where)+49 || size == 1<<20 && n != 1 {
			t.Errorf("parts of %d bytes: %d parts of %d SCOs, to seq %d of %d", size, n, len(where), seq-1, found.Reached)
		}
	}
	next.resume(found)
	next.check(0, int(end), 1)
}
