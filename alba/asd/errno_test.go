package asd

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// errnos are what any call may be answered with. For a short test, and for as
// long as it lasts, one of each kind.
func errnos(times int) []unix.Errno {
	if testing.Short() || times == 0 {
		return []unix.Errno{unix.EIO, unix.EMFILE, unix.ENOSPC}
	}
	return []unix.Errno{unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.ENOSPC, unix.EINTR}
}

// fileOps are the calls that an ASD makes.
var fileOps = []faultdisk.Op{
	faultdisk.Open, faultdisk.Read, faultdisk.Write, faultdisk.Datasync, faultdisk.Prewrite, faultdisk.Size, faultdisk.Close,
	faultdisk.Rename, faultdisk.Remove, faultdisk.ReadDir, faultdisk.Stat, faultdisk.SyncDir, faultdisk.Lock, faultdisk.Statfs,
}

// outcomes is what each key may hold: one value if the last Apply of it was
// acknowledged, and one more for each that failed since. nil: it is deleted.
type outcomes map[string][]*osd.Update

func (o outcomes) applied(u osd.Update, err error) {
	next := &u
	if u.Delete {
		next = nil
	}
	key := string(u.Key)
	switch have, known := o[key]; {
	case err == nil:
		o[key] = []*osd.Update{next}
	case !known:
		o[key] = []*osd.Update{nil, next}
	default:
		o[key] = append(slices.Clone(have), next)
	}
}

// differs says which key of an ASD holds none of what it may, "" if all do.
// unread: what cannot be read is no difference, as long as the ASD says that.
func (o outcomes) differs(a *ASD, unread bool) string {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if unread && errors.Is(a.Read(ctx, []byte(key), 0, nil, nil), osd.ErrUnreadable) {
			continue
		}
		got, err := get(a, key)
		ok := slices.ContainsFunc(o[key], func(u *osd.Update) bool {
			if u == nil {
				return errors.Is(err, osd.ErrNotFound)
			}
			return err == nil && bytes.Equal(got, u.Value.Data)
		})
		if !ok {
			return fmt.Sprintf("%s: %d bytes, %v, of %d that it may hold", key, len(got), err, len(o[key]))
		}
	}
	return ""
}

// used returns the disk that a killed ASD leaves: some segments, a checkpoint in
// the middle of them if there is to be one, and batches behind it, the last of
// which no mark speaks of. And what was acknowledged.
func used(t *testing.T, checkpoint bool) (*crashdisk.FS, outcomes) {
	t.Helper()
	mem := crashdisk.New()
	fsys := faultdisk.New(mem)
	a := openNew(t, errnoOptions(fsys))
	quiet(a)
	rng := rand.New(rand.NewPCG(21, 21))
	have := outcomes{}
	step := func(i int) {
		key := fmt.Sprintf("key-%02d", i%17)
		u := put(key, random(rng, []int{10, 500, 5000, 20000, 40000}[i%5]), uint64(i))
		if i%7 == 3 {
			u = del(key)
		}
		apply(t, a, u)
		have.applied(u, nil)
	}
	for i := range 60 {
		step(i)
		if i == 30 && checkpoint {
			if err := a.checkpoints.write(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The mark behind the last batch does not come, as in a power cut.
	fsys.Inject(faultdisk.Rule{Ops: faultdisk.Write, Skip: 1, Times: 1, Err: unix.EIO})
	step(60)
	image := mem.Kill()
	fsys.Clear()
	return image, have
}

func errnoOptions(fsys disk.FS) Options {
	opt := small(fsys)
	opt.SegmentBytes = 128 << 10
	opt.patience = time.Millisecond
	return opt
}

// intact opens what is left when the fault is over: killed, and cut off from
// power.
func intact(t *testing.T, what string, mem *crashdisk.FS, want outcomes) {
	t.Helper()
	for i, image := range []*crashdisk.FS{mem.Kill(), mem.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)} {
		a, err := Open(errnoOptions(image))
		if err != nil {
			t.Fatalf("%s: opened anew: %v", what, err)
		}
		if why := want.differs(a, false); why != "" {
			t.Fatalf("%s, cut %v: %s", what, i == 1, why)
		}
		if d := a.Damage(); len(d) > 0 {
			t.Fatalf("%s, cut %v: %v", what, i == 1, d)
		}
		a.Close()
	}
}

// An errno is not damage: whichever call an open makes is answered with an
// error, once or as long as it lasts, the ASD opens and has all, or says that it
// cannot tell, or is refused with the file and the error. Nothing is lost when
// the fault is over.
func TestErrnoWhileOpening(t *testing.T) {
	for _, checkpoint := range []bool{true, false} {
		mem, have := used(t, checkpoint)
		for _, op := range fileOps {
			for _, times := range []int{1, 0} {
				for _, errno := range errnos(times) {
					for skip := 0; errnoAtOpen(t, mem, have, op, errno, skip, times); skip++ {
						if times == 0 && skip >= 3 || testing.Short() && skip >= 4 {
							break
						}
					}
				}
			}
		}
	}
}

// errnoAtOpen reports whether the rule fired.
func errnoAtOpen(t *testing.T, mem *crashdisk.FS, have outcomes, op faultdisk.Op, errno unix.Errno, skip, times int) bool {
	t.Helper()
	what := fmt.Sprintf("%v answered with %v, from number %d, %d times", op, errno, skip, times)
	image := mem.Kill()
	fsys := faultdisk.New(image)
	rule := fsys.Inject(faultdisk.Rule{Ops: op, Skip: skip, Times: times, Err: errno})
	a, err := Open(errnoOptions(fsys))
	fired := rule.Fired() > 0
	after := maps.Clone(have)
	if err != nil {
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), "disk") {
			t.Fatalf("%s: the error does not name it: %v", what, err)
		}
		fsys.Clear()
		intact(t, what, image, after)
		return fired
	}
	if times == 1 {
		fsys.Clear()
		if why := have.differs(a, true); why != "" {
			t.Fatalf("%s: %s", what, why)
		}
	}
	for i := range 8 {
		u := put(fmt.Sprintf("key-%02d", i), make([]byte, 3000*i), 99)
		after.applied(u, a.Apply(ctx, nil, []osd.Update{u}))
	}
	killed := image.Kill()
	a.Close()
	fsys.Clear()
	intact(t, what, killed, after)
	intact(t, what+", closed", image, after)
	return fired
}

// The same while it runs: puts, deletes, checkpoints and compaction.
func TestErrnoWhileRunning(t *testing.T) {
	for _, op := range fileOps {
		for _, times := range []int{1, 0} {
			for _, errno := range errnos(times) {
				for skip := 0; errnoRunning(t, op, errno, skip, times); skip += 1 + skip/3 {
					if times == 0 && skip >= 3 || testing.Short() && skip >= 4 {
						break
					}
				}
			}
		}
	}
}

func errnoRunning(t *testing.T, op faultdisk.Op, errno unix.Errno, skip, times int) bool {
	t.Helper()
	what := fmt.Sprintf("%v answered with %v, from number %d, %d times", op, errno, skip, times)
	mem := crashdisk.New()
	fsys := faultdisk.New(mem)
	opt := errnoOptions(fsys)
	if err := Create(fsys, opt.Dir, testID); err != nil {
		t.Fatal(err)
	}
	a, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	quiet(a)
	rule := fsys.Inject(faultdisk.Rule{Ops: op, Skip: skip, Times: times, Err: errno})
	rng := rand.New(rand.NewPCG(31, 31))
	have := outcomes{}
	refused := 0
	for i := range 50 {
		key := fmt.Sprintf("key-%02d", rng.IntN(12))
		u := put(key, random(rng, []int{10, 5000, 20000}[i%3]), uint64(i))
		if rng.IntN(4) == 0 {
			u = del(key)
		}
		err := a.Apply(ctx, nil, []osd.Update{u})
		if err != nil {
			refused++
			if !errors.Is(err, errno) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		have.applied(u, err)
		switch i % 10 {
		case 4:
			_ = a.checkpoints.write()
		case 7:
			_ = a.upkeep.pass(ctx)
		case 9:
			get(a, key)
			if _, _, err := a.Verify(ctx, nil, 100); err != nil && !errors.Is(err, errno) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	fired := rule.Fired() > 0
	// That there was no descriptor stops nothing.
	const takes = faultdisk.Open | faultdisk.SyncDir
	if times == 1 && op&takes != 0 && noDescriptor(errno) && (refused > 0 || a.health.writable() != nil) {
		t.Fatalf("%s: %d refused, %v", what, refused, a.health.writable())
	}
	killed := mem.Kill()
	a.Close()
	fsys.Clear()
	intact(t, what, killed, have)
	intact(t, what+", closed", mem, have)
	return fired
}

// An ASD that is made, and claimed, while a call fails: the next try makes it, or
// finds it, and nobody is told of an owner that a power cut takes away.
func TestErrnoWhileMaking(t *testing.T) {
	for _, op := range fileOps {
		for _, errno := range errnos(1) {
			for skip, fired := 0, true; fired; skip++ {
				what := fmt.Sprintf("%v answered with %v, from number %d", op, errno, skip)
				mem := crashdisk.New()
				fsys := faultdisk.New(mem)
				rule := fsys.Inject(faultdisk.Rule{Ops: op, Skip: skip, Times: 1, Err: errno})
				opt := errnoOptions(fsys)
				if err := Create(fsys, opt.Dir, testID); err != nil {
					if id, err := ReadIdentity(fsys, opt.Dir); err == nil && id != testID {
						t.Fatalf("%s: %v", what, id)
					} else if err != nil {
						if err := Create(fsys, opt.Dir, testID); err != nil {
							t.Fatalf("%s: made again: %v", what, err)
						}
					}
				}
				a, err := Open(opt)
				if err != nil {
					a = reopen(t, opt)
				}
				owner := [16]byte{7}
				claimed := a.Claim(ctx, owner) == nil
				if !claimed && a.health.writable() == nil {
					if err := a.Claim(ctx, owner); err != nil {
						t.Fatalf("%s: claimed again: %v", what, err)
					}
					claimed = true
				}
				opt.FS = mem.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
				fired = rule.Fired() > 0
				a.Close()
				b := reopen(t, opt)
				if id := b.Identity(); id.ID != testID.ID || claimed && id.Owner != owner {
					t.Fatalf("%s: %+v", what, id)
				}
				b.Close()
			}
		}
	}
}
