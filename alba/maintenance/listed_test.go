package maintenance_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"openvstorage/alba/albatest"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
)

// deletes deletes an object with its fragments when a page that has it was read.
type deletes struct {
	*albatest.Backend
	once sync.Once
	gone func()
}

func (d *deletes) MultiGet(ctx context.Context, keys [][]byte, c userfn.Consistency) ([][]byte, error) {
	return d.States[1].MultiGet(ctx, keys, c)
}

func (d *deletes) Range(ctx context.Context, first, last []byte, limit int, c userfn.Consistency) ([]userfn.Pair, error) {
	p, err := d.States[1].Range(ctx, first, last, limit, c)
	if strings.HasPrefix(string(first), "nsm/B") {
		d.once.Do(d.gone)
	}
	return p, err
}

// An object that was deleted after it was listed is no repair that failed: nothing is
// said of it, and nobody waits for it.
func TestDeletedSinceItWasListed(t *testing.T) {
	b := narrow(t, 1)
	d := &deletes{Backend: b, gone: func() {
		check(t, b.Namespace("ns").Delete(ctx, []string{"o0"}, nil))
		for n := range uint64(2) {
			keys, err := b.Disks[1+n].Range(ctx, nil, nil, 100)
			check(t, err)
			for _, k := range keys {
				check(t, b.Disks[1+n].Apply(ctx, nil, []osd.Update{{Key: k.Key, Delete: true}}))
			}
		}
	}}
	opt := b.WorkOptions()
	opt.Host = func(uint64) (*nsm.Client, error) { return nsm.NewClient(b.States[1], d), nil }
	b.Work = maintenance.New(opt)
	check(t, b.Work.Survey(ctx))
	if s := b.Work.Stats(); s.Failures != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}
