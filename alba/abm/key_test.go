package abm_test

import (
	"errors"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/userfn"
)

// The check value of a master key stays: the same again is no error, another one is.
func TestKeyChecks(t *testing.T) {
	s, c := manager(t)
	one := abm.KeyCheck{Number: 1, Kind: abm.KeyCheckV1, Value: [32]byte{1}}
	two := abm.KeyCheck{Number: 1 << 40, Kind: abm.KeyCheckV1, Value: [32]byte{2}}
	for _, k := range []abm.KeyCheck{two, one, two} {
		if err := c.PutKeyCheck(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []abm.KeyCheck{{Number: 1, Kind: abm.KeyCheckV1}, {Number: 1, Kind: 2, Value: one.Value}} {
		if err := c.PutKeyCheck(ctx, k); !errors.Is(err, abm.ErrExists) {
			t.Errorf("%+v: %v", k, err)
		}
	}
	for _, k := range []abm.KeyCheck{{Kind: abm.KeyCheckV1}, {Number: 3}} {
		if err := c.PutKeyCheck(ctx, k); !errors.Is(err, abm.ErrInvalid) {
			t.Errorf("%+v: %v", k, err)
		}
	}
	list, err := c.KeyChecks(ctx, userfn.Consistent)
	if err != nil || len(list) != 2 || list[0] != one || list[1] != two {
		t.Errorf("%+v, %v", list, err)
	}
	check(t, s)
}
