package volumedriver

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"openvstorage/backend/fault"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver/catalog"
)

// storeAll takes the storer's steps until nothing is left to store, and returns
// the first error.
func storeAll(ctx context.Context, v *Volume) error {
	v.store.urgent.Add(1)
	defer v.store.urgent.Add(-1)
	for v.store.group != nil || len(v.buf.Work().TLogs) > 0 {
		if _, err := v.store.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func object(t *testing.T, v *Volume, name string) []byte {
	t.Helper()
	info, err := v.namespace().Stat(context.Background(), name)
	must(t, err)
	b := make([]byte, info.Size)
	must(t, get(context.Background(), v.namespace(), name, b, 0))
	return b
}

// A catalog put that took effect and said that it failed: its TLogs are stored.
// The next group begins behind them, and the SCOs that the catalog names stay as
// they are, though the next group overwrites what they hold.
func TestGroupBehindAnUnsurePut(t *testing.T) {
	ctx := context.Background()
	for _, effect := range []bool{true, false} {
		var back *fault.Store
		fs := crashdisk.New()
		r, d := newRig(t, fs, modelDisk, func(o *Options) { back = fault.New(o.Backend); o.Backend = back })
		v := volumeOf(t, r, "v")
		v.store.stop()
		write(t, d, 0, 8, 1)
		v.buf.CloseTLog()
		first := v.buf.Work().TLogs[0]
		name := first.SCOs()[0].Number.Name()
		back.Add(fault.Rule{Ops: []fault.Op{fault.PutIf}, Object: catalog.ObjectName, Err: context.DeadlineExceeded, After: effect, Count: 1})
		if err := storeAll(ctx, v); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("effect %v: %v", effect, err)
		}
		before := object(t, v, name)
		write(t, d, 0, 4, 2)
		must(t, d.Flush(ctx))
		v.buf.CloseTLog()
		must(t, errors.Join(v.cat.settle(ctx), v.store.agree(ctx)))
		if n := len(v.buf.Work().TLogs); effect && n != 1 || !effect && n != 2 {
			t.Errorf("effect %v: %d TLogs wait to be stored", effect, n)
		}
		must(t, storeAll(ctx, v))
		if effect && !bytes.Equal(object(t, v, name), before) {
			t.Errorf("%s was replaced under a catalog that names it", name)
		}
		if v.cat.storedSeq() != v.buf.Written() || v.Err() != nil {
			t.Errorf("effect %v: stored to %d of %d, %v", effect, v.cat.storedSeq(), v.buf.Written(), v.Err())
		}
		image := fs.Kill()
		must(t, r.close())
		after := reopen(t, image, nil)
		holdsPattern(t, open(t, after.host, "v"), 0, 4, 2)
		p := make([]byte, 4*4096)
		must(t, open(t, after.host, "v").Read(ctx, p, 4*4096))
		if !bytes.Equal(p, pattern(1, 4)) {
			t.Errorf("effect %v: what was not overwritten is gone", effect)
		}
	}
}

// A group that does not begin where the catalog ends is not stored: the catalog
// would say of what lies between that it is. The restart finds it all in local
// files.
func TestGroupBehindAGap(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, nil)
	v := volumeOf(t, r, "v")
	v.store.stop()
	g := groupOf(t, v, func() { write(t, d, 0, 4, 1) }, func() { write(t, d, 8, 4, 2) })
	must(t, d.Flush(ctx))
	g.tlogs = g.tlogs[1:] // as if it had been forgotten
	v.store.group = g
	var err error
	for err == nil && v.store.group != nil {
		_, err = v.store.storeSome(ctx, 4, 0)
	}
	var gap *gapError
	if !errors.As(err, &gap) || gap.first != 2 || gap.stored != 0 {
		t.Errorf("a group behind a gap: %v", err)
	}
	if v.Err() == nil || v.cat.storedSeq() != 0 {
		t.Errorf("stored to %d, %v", v.cat.storedSeq(), v.Err())
	}
	image := fs.Kill()
	must(t, r.close())
	after := reopen(t, image, nil)
	holdsPattern(t, open(t, after.host, "v"), 0, 4, 1)
	holdsPattern(t, open(t, after.host, "v"), 8, 4, 2)
	must(t, after.host.Sync(ctx, "v", nil))
	if v := volumeOf(t, after, "v"); v.cat.storedSeq() < 2 || v.Err() != nil {
		t.Errorf("after the restart: stored to %d, %v", v.cat.storedSeq(), v.Err())
	}
}
