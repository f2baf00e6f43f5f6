package raftlog

import (
	"path"
	"testing"

	"openvstorage/internal/disk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// TestInspect: the records of a segment are told, and damage below what is known
// to have been synced.
func TestInspect(t *testing.T) {
	fsys := newDisk(t)
	l := open(t, fsys)
	for i := range uint64(3) {
		if err := l.Append(Round{Entries: []*pb.Entry{entry(i+2, 1, "x")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := path.Join(testOptions(fsys).Dir, segmentName(1))
	inspect := func() (last uint64, at int64, faults int) {
		t.Helper()
		if _, err := Inspect(fsys, name, func(r Record) error {
			switch {
			case r.Err != nil:
				faults++
			case r.Kind == "entries" && at == 0:
				at = r.Offset
				fallthrough
			case r.Kind == "entries":
				last = r.Last
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return last, at, faults
	}
	last, at, faults := inspect()
	if last != 4 || faults != 0 {
		t.Errorf("entries up to %d, %d faults", last, faults)
	}
	f, err := fsys.OpenFile(name, disk.Write, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at+20); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], at+20); err != nil {
		t.Fatal(err)
	}
	if _, _, faults := inspect(); faults != 1 {
		t.Errorf("%d faults of a damaged record", faults)
	}
}
