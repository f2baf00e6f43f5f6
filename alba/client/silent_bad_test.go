package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/backend"
	"openvstorage/internal/gate"
)

// stuckUsage is a disk of which one call hangs, and no read.
type stuckUsage struct {
	osd.OSD
	door *gate.Gate
}

func (s stuckUsage) Usage(ctx context.Context) (osd.Usage, error) {
	s.door.Hold(context.WithoutCancel(ctx))
	return s.OSD.Usage(ctx)
}

// What was read and found bad stays so when the disk of the range, which is silent, is
// asked last: two of three are bad, and nobody waits for them.
func TestBadWhileSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := withObject(t, plainPreset(twoOne), 64<<10)
		go o.Fleet.Watch(t.Context(), nil)
		own, other := o.disk(0, 0), o.disk(0, 1)
		spoil(t, o.Backend, own)
		spoil(t, o.Backend, other)
		door := gate.New()
		o.Fleet.Disk(own).Attach(stuckUsage{o.Faults[own], door})
		go o.Fleet.Disk(own).Refresh(ctx)
		time.Sleep(400 * time.Second)
		if o.Fleet.Disk(own).Silent() == nil {
			t.Fatal("the disk is not silent")
		}
		if _, err := o.Namespace("ns").Get(ctx, "o", make([]byte, 4096), 0); err == nil || errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("two of three fragments are bad, and it may come back: %v", err)
		}
		door.Open()
		time.Sleep(10 * time.Second)
	})
}
