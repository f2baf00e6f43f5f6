package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/cluster"
	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/host/registrykeys"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver/volumetest"
)

// doubtful is a user of a group whose changes are not always answered: they
// happen, or never, or when the next change begins, as changes of a log do.
type doubtful struct {
	*groups.User
	fates *fates

	mu   sync.Mutex
	late func()
}

// fates decides what becomes of changes.
type fates struct {
	on  atomic.Bool
	one int // of so many is not answered
	mu  sync.Mutex
	rng *rand.Rand
}

var errWholeDoubt = fmt.Errorf("%w: no answer", arakoon.ErrUnknownOutcome)

// draw says what becomes of a change: 0 is answered, 1 made, 2 lost, 3 late.
func (f *fates) draw() (fate int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on.Load() || f.rng.IntN(f.one) > 0 {
		return 0, nil
	}
	err = errWholeDoubt
	if f.rng.IntN(2) == 0 { // whose time has run out does not ask again
		err = errors.Join(err, context.DeadlineExceeded)
	}
	return 1 + f.rng.IntN(3), err
}

// change makes a change that may not be answered.
func (d *doubtful) change(ctx context.Context, do func(context.Context) error) error {
	d.mu.Lock()
	late := d.late
	if d.late = nil; late != nil {
		late()
	}
	d.mu.Unlock()
	switch fate, err := d.fates.draw(); fate {
	case 1:
		return errors.Join(err, do(ctx))
	case 2:
		return err
	case 3:
		ctx := context.WithoutCancel(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		before := d.late
		d.late = func() {
			if before != nil {
				before()
			}
			_ = do(ctx)
		}
		return err
	}
	return do(ctx)
}

// Do implements registrykeys.Node.
func (d *doubtful) Do(ctx context.Context, seq *arakoon.Sequence) (results []arakoon.Result, err error) {
	err = d.change(ctx, func(ctx context.Context) error {
		_, err := d.User.Do(ctx, seq)
		return err
	})
	return results, err
}

// Call implements cluster.Node.
func (d *doubtful) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	var mu sync.Mutex // what comes late gives its result to nobody
	var result []byte
	err := d.change(ctx, func(ctx context.Context) error {
		got, err := d.User.Call(ctx, name, version, arg)
		mu.Lock()
		defer mu.Unlock()
		result = got
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		return nil, err
	}
	return result, nil
}

var (
	_ registrykeys.Node = (*doubtful)(nil)
	_ cluster.Node      = (*doubtful)(nil)
)

// The bar of unknown outcomes over the whole process: registry, ABM and NSM do
// not always answer.
func TestWholeUnknown(t *testing.T) {
	seed := volumetest.Seed(t)
	n := seed
	volumetest.Unknown(t, func(fs disk.FS) (*volumetest.System, error) {
		n++
		some := &fates{one: 20, rng: rand.New(rand.NewPCG(n, 1))}
		few := &fates{one: 4, rng: rand.New(rand.NewPCG(n, 2))} // a registry is seldom asked
		e, err := openWholeWith(fs, func(o *openOptions) {
			tune := o.tune
			o.tune = func(a *albahere.Options) {
				tune(a)
				a.ReopenEvery = 5 * time.Millisecond
				a.Maintain = albahere.Maintain{
					Tick: time.Millisecond, Survey: 10 * time.Millisecond, Collect: 10 * time.Millisecond, Grace: 5 * time.Millisecond,
					RebuildAfter: time.Hour, Scrub: time.Millisecond,
				}
				a.Node = func(_ string, node cluster.Node) cluster.Node {
					return &doubtful{User: node.(*groups.User), fates: some}
				}
			}
			o.node = func(node registrykeys.Node) registrykeys.Node {
				return &doubtful{User: node.(*groups.User), fates: few}
			}
		})
		if err != nil {
			return nil, err
		}
		return &volumetest.System{
			Host: e.Host, Close: func() error { return closeWhole(e, false) },
			Doubt: func(on bool) { some.on.Store(on); few.on.Store(on) },
		}, nil
	}, 20, 40)
}
