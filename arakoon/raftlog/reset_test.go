package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// A reset that a power cut or an error meets at any operation leaves the old log or the
// new one. Entries of the old one behind the marker are gone with it, although the
// segments that hold them may be there.
func TestResetIsAtomic(t *testing.T) {
	conf := &pb.ConfState{Voters: []uint64{7, 8}, Learners: []uint64{9}}
	for _, index := range []uint64{20, 100} { // within the log, and behind it
		cuts, ended := 0, false
		for at := 0; !ended; at++ {
			under := newDisk(t)
			faulty := faultdisk.New(under)
			l := open(t, faulty)
			appendSome(t, l, 60)
			if err := l.Append(Round{HardState: hardState(1, 7, 3)}); err != nil {
				t.Fatal(err)
			}
			l.preparer.Wait()
			old := contents(t, l)
			now := model{marker: index, hard: describeHard(hardState(5, 8, index))}
			var images []*crashdisk.FS
			rng := rand.New(rand.NewPCG(uint64(at), 1))
			cut := faulty.Inject(faultdisk.Rule{
				Ops:  faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir,
				Skip: at, Times: 1,
				Before: func(faultdisk.Op, string) {
					for _, mode := range []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed} {
						images = append(images, under.Crash(rng, mode))
					}
				},
			})
			if err := l.Reset(Marker{Index: index, Term: 5, Conf: conf}, hardState(5, 8, 2)); err != nil {
				t.Fatal(err)
			}
			ended = cut.Fired() == 0
			for _, image := range images {
				cuts++
				check(t, image, []model{old, now})
			}
			if got := contents(t, l); !got.equal(now) {
				t.Fatalf("after the reset: %+v", got)
			}
			if m := l.Marker(); m.Term != 5 || len(m.Conf.GetVoters()) != 2 || len(m.Conf.GetLearners()) != 1 {
				t.Fatalf("%+v", m)
			}
			check(t, under.Crash(rng, crashdisk.LoseAll), []model{now})
		}
		if cuts < 15 {
			t.Errorf("only %d power cuts", cuts)
		}
	}
}

// What makes the log fail in a reset leaves, for the next opening, one of both logs; what
// passes leaves a log that goes on, and takes the reset the next time.
func TestResetFails(t *testing.T) {
	for at := range 12 {
		for _, bad := range []error{errors.New("bad disk"), unix.ENOSPC} {
			t.Run(fmt.Sprint(at, bad), func(t *testing.T) {
				under := newDisk(t)
				faulty := faultdisk.New(under)
				l := open(t, faulty)
				appendSome(t, l, 60)
				l.preparer.Wait()
				old := contents(t, l)
				now := model{marker: 20, hard: describeHard(hardState(5, 8, 20))}
				rule := faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.SyncDir, Skip: at, Err: bad}
				if bad == unix.ENOSPC {
					rule.Times = 1
				}
				faulty.Inject(rule)
				reset := func() error {
					return l.Reset(Marker{Index: 20, Term: 5, Conf: &pb.ConfState{Voters: []uint64{7}}}, hardState(5, 8, 2))
				}
				err := reset()
				if err != nil && l.Err() == nil {
					check(t, under.Kill(), []model{old, now})
					err = reset()
				}
				switch {
				case err == nil:
					check(t, under.Kill(), []model{now})
				case bad == unix.ENOSPC && !errors.Is(err, ErrFailed):
					t.Fatal(err)
				default:
					check(t, under.Kill(), []model{old, now})
				}
			})
		}
	}
}

// A marker that resets says so in its flags, next to the one of a joint configuration.
func TestMarkerFlags(t *testing.T) {
	for flags := range byte(4) {
		m := Marker{Index: 3, Term: 2, Conf: &pb.ConfState{Voters: []uint64{7}}, reset: flags&markerResets != 0}
		if flags&markerLeaves != 0 {
			m.Conf.AutoLeave = new(true)
		}
		b := appendMarker(nil, m)
		if b[16] != flags {
			t.Fatalf("flags %d are written as %d", flags, b[16])
		}
		if got, err := decodeMarker(b); err != nil || got.reset != m.reset || got.Conf.GetAutoLeave() != m.Conf.GetAutoLeave() {
			t.Fatalf("%+v, %v", got, err)
		}
	}
}

// The log never goes back behind where it begins.
func TestResetBackwards(t *testing.T) {
	l := open(t, newDisk(t))
	appendSome(t, l, 20)
	conf := &pb.ConfState{Voters: []uint64{7}}
	if err := l.Compact(10, conf); err != nil {
		t.Fatal(err)
	}
	if err := l.Reset(Marker{Index: 10, Term: 1, Conf: conf}, nil); err == nil || l.Err() != nil {
		t.Fatalf("%v, %v", err, l.Err())
	}
	if err := l.Reset(Marker{Index: 11, Term: 1, Conf: conf}, nil); err != nil {
		t.Fatal(err)
	}
	if last, _ := l.LastIndex(); last != 11 {
		t.Fatal(last)
	}
}
