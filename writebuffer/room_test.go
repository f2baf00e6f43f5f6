package writebuffer

import (
	"fmt"
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// A write, or a flush, that finds no room waits until there is some: it is refused
// neither then nor later, nothing is appended to the file that had none, and no
// restart lacks it (P6).
func TestNoRoomWaits(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT} {
		for _, rule := range []faultdisk.Rule{
			{Ops: faultdisk.Write, Path: "sco-*", Short: 100}, {Ops: faultdisk.Write, Path: "tlog-*", Short: 100},
			{Ops: faultdisk.Allocate}, {Ops: faultdisk.Open, Path: "tlog-*"}, {Ops: faultdisk.Datasync},
			{Ops: faultdisk.Rename}, {Ops: faultdisk.SyncDir}, {Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Allocate},
		} {
			t.Run(fmt.Sprintf("%v %s %v", rule.Ops, rule.Path, errno), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				r.write(1, 2, 1)
				r.commit()
				r.untilReady()
				rule.Err, rule.Times = errno, 5 // each may cost a file
				r.disk.Inject(rule)
				for i := range uint64(20) {
					r.write(10+4*i, 3, i)
					if i%5 == 0 {
						r.commit()
					}
				}
				r.commit()
				if err := r.log.Err(); err != nil {
					t.Fatal(err)
				}
				r.restarts(func(_ string, r *rig) {
					r.check(1, 2, 1)
					for i := range uint64(20) {
						r.check(10+4*i, 3, i)
					}
				})
			})
		}
	}
}

// A buffer that is larger than its file system takes what that has, less a reserve,
// in smaller SCOs; and gives files up when others take the room.
func TestFileSystemTooSmall(t *testing.T) {
	const total = 128 << 20
	under := crashdisk.New()
	faults := faultdisk.New(under)
	opt := bufferOptions(faults)
	if err := under.MkdirAll("/buffer/pool", 0o700); err != nil {
		t.Fatal(err)
	}
	q := faults.Limit("/", total).Disk(total)
	opt.Bytes, opt.Ready = 2<<30, 1000
	b, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	reserve := Reserve(total)
	if b.SCOSize()*scoShare > total-reserve {
		t.Errorf("SCOs of %d bytes on %d", b.SCOSize(), total)
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v, %d bytes left", what, b.Usage(), q.Left())
			}
		}
	}
	until("it takes what there is", func() bool {
		u := b.Usage()
		return u.Free == u.Bytes && u.Bytes == u.Limit && q.Left() < reserve+b.SCOSize()
	})
	if u := b.Usage(); q.Left() < reserve || u.Wanted != opt.Bytes || u.Lacks != nil {
		t.Errorf("%d bytes left, %d are the reserve: %+v", q.Left(), reserve, u)
	}
	q.Grow(-q.Left()) // somebody else takes all
	until("it gives way", func() bool { return q.Left() >= reserve })
	q.Grow(total)
	until("it takes more again", func() bool { return b.Usage().Limit > total-reserve })
}

// MakeRoom removes free files of a buffer that is not open, as few as it takes.
func TestMakeRoom(t *testing.T) {
	under := crashdisk.New()
	faults := faultdisk.New(under)
	if err := under.MkdirAll("/buffer/pool", 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		f, err := faults.OpenFile(fmt.Sprintf("/buffer/pool/%d", i), 3, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
	}
	const total = 16 << 20
	q := faults.Limit("/buffer", 0).Disk(total)
	if n := MakeRoom(faults, "/buffer", false); n != 2 || q.Left() != Reserve(total) {
		t.Errorf("%d files, %d bytes left", n, q.Left())
	}
	if n := MakeRoom(faults, "/buffer", true); n != 8 {
		t.Errorf("%d files of 8", n)
	}
}
