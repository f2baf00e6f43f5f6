package volumetest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"openvstorage/internal/disk/faultdisk"
)

// errnos are the answers that are tried.
var errnos = []syscall.Errno{
	syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EACCES, syscall.ENOSPC, syscall.EINTR,
}

// Moments at which a disk answers with an errno.
const (
	atStart   = "start" // of a system that has data, clones and snapshots
	atWork    = "work"
	atStop    = "stop"
	atNothing = "" // never: to count calls
)

// ErrnoCase is one call on one kind of file, and the errno that answers it.
type ErrnoCase struct {
	Image  string // what the system starts from: closed, killed or cut
	Moment string
	Kind   string // of file
	Op     faultdisk.Op
	Turn   int // which of these calls
	Errno  syscall.Errno
}

func (c ErrnoCase) String() string {
	return fmt.Sprintf("%s/%s/%s/%v/%d/%s", c.Image, c.Moment, c.Kind, c.Op, c.Turn, errnoName(c.Errno))
}

func errnoName(e syscall.Errno) string {
	return map[syscall.Errno]string{
		syscall.EIO: "EIO", syscall.EMFILE: "EMFILE", syscall.ENFILE: "ENFILE", syscall.ENOMEM: "ENOMEM", syscall.EACCES: "EACCES",
		syscall.ENOSPC: "ENOSPC", syscall.EINTR: "EINTR",
	}[e]
}

// ErrnoSuite is what TestErrnos needs to know of a system.
type ErrnoSuite struct {
	Open  Opener                   // as the product opens it
	Judge Opener                   // whose Close also looks at all that is stored
	Kind  func(path string) string // of a file, "" for one that is of no interest
	// MayHalt says whether in this case a vDisk may halt, or what vDisks rest on may
	// fail, until the next start.
	MayHalt func(ErrnoCase) bool
	Cases   int // about how many are tried; 0: all, each call in turn
}

// Errnos runs a system many times, and answers one call in each run with an errno: at
// the start, during work, or at the stop. Together the runs try every kind of call on
// every kind of file with every errno. A run goes on in spite of the errno, or reports an
// error that names the file and the errno. Afterwards the system is started anew: all
// that was acknowledged is there, and nothing is halted.
func Errnos(t *testing.T, suite ErrnoSuite) {
	rng := rand.New(rand.NewPCG(Seed(t), 4))
	s := &errnoTest{ErrnoSuite: suite, t: t, base: newErrnoBase(t, suite.Judge, rng)}
	cases := s.choose(rng)
	fired, byKind := 0, map[string]int{}
	var mu sync.Mutex
	var lanes sync.WaitGroup
	next := make(chan ErrnoCase)
	for range 4 {
		lanes.Go(func() {
			for c := range next {
				did, err := s.try(c)
				mu.Lock()
				if did {
					fired++
					byKind[c.Kind+" "+c.Op.String()]++
				}
				if err != nil {
					t.Errorf("%v: %v", c, err)
				}
				mu.Unlock()
			}
		})
	}
	for _, c := range cases {
		next <- c
	}
	close(next)
	lanes.Wait()
	t.Logf("%d cases, %d fired, %d kinds of call", len(cases), fired, len(byKind))
}

type errnoTest struct {
	ErrnoSuite
	t    *testing.T
	base *errnoBase
}

// call is a kind of call at a moment.
type call struct {
	image, moment, kind string
	op                  faultdisk.Op
}

// choose draws the cases: one of each kind of call, then another one of each kind with
// another errno, and so on until there are as many as wanted. A run in which nothing goes
// wrong shows which calls there are.
func (s *errnoTest) choose(rng *rand.Rand) (cases []ErrnoCase) {
	type kind struct {
		file string
		op   faultdisk.Op
	}
	byErrno := map[kind]map[syscall.Errno][]ErrnoCase{}
	for _, image := range slices.Sorted(maps.Keys(s.base.images)) {
		for c, n := range s.count(image) {
			k := kind{c.kind, c.op}
			if byErrno[k] == nil {
				byErrno[k] = map[syscall.Errno][]ErrnoCase{}
			}
			for _, e := range errnos {
				for turn := range n {
					byErrno[k][e] = append(byErrno[k][e], ErrnoCase{image, c.moment, c.kind, c.op, turn, e})
				}
			}
		}
	}
	kinds := slices.SortedFunc(maps.Keys(byErrno), func(a, b kind) int {
		return cmp.Or(strings.Compare(a.file, b.file), cmp.Compare(a.op, b.op))
	})
	orders := make([][]ErrnoCase, len(kinds))
	for i, k := range kinds {
		orders[i] = s.order(rng, byErrno[k])
	}
	for round, more := 0, true; more && (round == 0 || s.Cases == 0 || len(cases) < s.Cases); round++ {
		more = false
		for _, o := range orders {
			if round < len(o) && (round == 0 || s.Cases == 0 || len(cases) < s.Cases) {
				cases, more = append(cases, o[round]), true
			}
		}
		shuffle(rng, orders)
	}
	shuffle(rng, cases)
	return cases
}

// order mixes the cases of one kind of call, so that the errnos take turns.
func (s *errnoTest) order(rng *rand.Rand, byErrno map[syscall.Errno][]ErrnoCase) (order []ErrnoCase) {
	only := os.Getenv("OVS_TEST_ERRNO")
	turns := slices.Clone(errnos)
	shuffle(rng, turns)
	for _, e := range turns {
		slices.SortFunc(byErrno[e], func(a, b ErrnoCase) int { return strings.Compare(a.String(), b.String()) })
		shuffle(rng, byErrno[e])
	}
	for turn := range byErrno[turns[0]] {
		for _, e := range turns {
			c := byErrno[e][turn]
			if ok, _ := path.Match(only, c.String()); ok || only == "" {
				order = append(order, c)
			}
		}
	}
	return order
}

func shuffle[T any](rng *rand.Rand, list []T) {
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// count counts the calls of a run in which nothing goes wrong.
func (s *errnoTest) count(image string) map[call]int {
	var mu sync.Mutex
	n := map[call]int{}
	r := s.run(image)
	r.fs.Inject(faultdisk.Rule{Before: func(op faultdisk.Op, name string) {
		if kind := s.Kind(name); kind != "" {
			mu.Lock()
			n[call{image, r.moment.Load().(string), kind, op}]++
			mu.Unlock()
		}
	}})
	if err := r.all(atNothing, nil); err != nil {
		s.t.Fatalf("with nothing wrong: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	return n
}

// try runs a case. fired says that the call was made, and was answered with the errno.
func (s *errnoTest) try(c ErrnoCase) (fired bool, err error) {
	r := s.run(c.Image)
	var mu sync.Mutex
	var name string
	var rule *faultdisk.Injection
	err = r.all(c.Moment, func() {
		rule = r.fs.Inject(faultdisk.Rule{
			Ops: c.Op, Skip: c.Turn, Times: 1, Err: c.Errno, Where: func(p string) bool { return s.Kind(p) == c.Kind },
			Before: func(_ faultdisk.Op, p string) { mu.Lock(); name = p; mu.Unlock() },
		})
	})
	if rule == nil || rule.Fired() == 0 {
		return false, err
	}
	mu.Lock()
	err = errors.Join(err, r.judgeTold(c.Errno, name))
	mu.Unlock()
	if len(r.halted) > 0 && !s.MayHalt(c) {
		err = errors.Join(err, fmt.Errorf("halted without need: %q", r.halted))
	}
	if err == nil {
		err = r.anew(s.Judge, c)
	}
	return true, err
}

// run begins with a copy of an image.
func (s *errnoTest) run(image string) *errnoRun {
	mem := s.base.images[image].Kill()
	return &errnoRun{open: s.Open, mem: mem, fs: faultdisk.New(mem), disks: s.base.disks(image)}
}
