package maintenance

import (
	"context"
	"errors"
	"testing"

	"openvstorage/alba/fleet"

	"github.com/google/uuid"
)

// The clock that ends with a rebuild runs for a disk that is gone, and not for
// one that is there and cannot be opened now.
func TestRebuildClock(t *testing.T) {
	f := fleet.New(nil)
	d := f.Add(1, uuid.New(), "node", "asd/1")
	m := New(Options{Fleet: f})
	for i, c := range []struct {
		set  func(error)
		runs bool
	}{{d.Unopened, false}, {d.Detach, true}, {d.Unopened, false}} {
		c.set(errors.New("why"))
		m.disks.refresh(context.Background())
		if _, runs := m.disks.missing[1]; runs != c.runs {
			t.Errorf("step %d: the clock runs: %v", i, runs)
		}
	}
}
