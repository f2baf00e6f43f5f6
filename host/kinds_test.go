package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"openvstorage/alba/abm"
	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/host/attach"
	"openvstorage/internal/control"
	"openvstorage/volumedriver"
)

// Each error of what is managed has the kind in the management protocol that it
// always had, says the same, and is what it was besides.
func TestKinds(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind string
	}{
		{volumedriver.ErrNotFound, "not-found"}, {volumedriver.ErrExists, "exists"}, {volumedriver.ErrHasChildren, "has-children"},
		{volumedriver.ErrInvalid, "invalid"}, {volumedriver.ErrHalted, "halted"}, {volumedriver.ErrBusy, "busy"}, {volumedriver.ErrElsewhere, "elsewhere"},
		{volumedriver.ErrUnknownOutcome, "unknown-outcome"}, {context.Canceled, "canceled"}, {errors.New("of no kind"), "failed"},
		{attach.ErrNotFound, "not-found"}, {attach.ErrInvalid, "invalid"}, {attach.ErrBusy, "busy"},
		{albahere.ErrNoOSD, "not-found"}, {albahere.ErrReplaced, "exists"}, {albahere.ErrCheck, "failed"},
		{abm.ErrNotFound, "not-found"}, {abm.ErrNamespaceNotFound, "not-found"}, {abm.ErrExists, "exists"}, {abm.ErrConflict, "exists"}, {abm.ErrInUse, "busy"},
		{preset.ErrPreset, "invalid"}, {policy.ErrPolicy, "invalid"},
		{errors.Join(volumedriver.ErrBusy, volumedriver.ErrUnknownOutcome), "unknown-outcome"}, // whatever the cause is
		{errors.Join(albahere.ErrNoOSD, context.Canceled), "canceled"},
		{control.ErrInvalid, "invalid"},
	} {
		err := fmt.Errorf("vDisk \"d\": %w; do this", c.err)
		got := Kind(err)
		if control.Kind(got) != c.kind || got.Error() != err.Error() || !errors.Is(got, c.err) {
			t.Errorf("%v is of kind %s and says %v, want kind %s", err, control.Kind(got), got, c.kind)
		}
	}
	if Kind(nil) != nil {
		t.Error("no error is of a kind")
	}
}

// Whatever people are told of vDisks and of the backend crosses the socket: no field
// is lost between the types of the parts that have it and those of the protocol.
func TestNothingIsLostOnTheWay(t *testing.T) {
	same := func(from, to any) {
		t.Helper()
		want, err := json.Marshal(from)
		got, err2 := json.Marshal(to)
		if err := errors.Join(err, err2); err != nil || string(got) != string(want) {
			t.Errorf("%T is told as\n%s\nwant\n%s, %v", from, got, want, err)
		}
	}
	v := filled[volumedriver.Info]()
	same(v, info(v))
	s := filled[albahere.Status]()
	same(s, backendStatus(s))
	o := filled[albahere.OSD]()
	same(o, managedOSD(o))
	n := filled[albahere.Namespace]()
	same(n, namespaceInfo(n))
	obj := filled[albahere.Object]()
	same(obj, managedObject(obj))
	same(albahere.Object{}, managedObject(albahere.Object{}))
	same(volumedriver.Info{}, info(volumedriver.Info{}))
	same(albahere.Namespace{}, namespaceInfo(albahere.Namespace{}))
	same(albahere.OSD{}, managedOSD(albahere.OSD{}))
}

// filled returns a value in which every field that JSON shows is set, lists having
// one element.
func filled[T any]() (v T) {
	fill(reflect.ValueOf(&v).Elem())
	return v
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000, 5).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(3)
	case reflect.Float64:
		v.SetFloat(1.5)
	default: // of all that are left
		v.SetUint(7)
	}
}
