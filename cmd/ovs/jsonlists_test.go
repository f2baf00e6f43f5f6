package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/alba/preset"
	"openvstorage/internal/control"
)

// TestListsAreArrays: in everything that is printed, an empty list is an array.
// What is written is what package json reads back.
func TestListsAreArrays(t *testing.T) {
	full := control.VDisk{Info: control.Info{
		ID: uuid.New(), Name: "a <b>&\u2028", Size: 1 << 60, State: "running", Created: time.Now().UTC().Round(0),
		Children: []string{"c"}, Snapshots: []control.SnapshotInfo{{Name: "s"}, {Name: "t", Children: []string{"d"}}},
	}, URIs: []string{"nbd://x"}}
	for _, v := range []any{
		control.VDisk{}, full, []control.VDisk(nil), []control.VDisk{{}, full}, control.SnapshotInfo{}, []control.SnapshotInfo{{}},
		control.BackendStatus{}, []control.OSD{{}}, control.Check{}, control.Namespace{}, control.ObjectPage{}, control.Object{Chunks: []control.Chunk{{}}},
		[]usedPreset(nil), []usedPreset{{Preset: preset.Default(3)}}, []control.Attachment(nil), map[string]string{"done": "x"}, "text", []byte("abc"), 7, nil,
	} {
		b, err := listsJSON(v, false)
		if err != nil {
			t.Fatalf("%T: %v", v, err)
		}
		var tree any
		if err := json.Unmarshal(b, &tree); err != nil {
			t.Fatalf("%T: %v in %s", v, err, b)
		}
		if where := findNull(tree, ""); where != "" && v != nil {
			t.Errorf("%T: %s is null in %s", v, where, b)
		}
		if v == nil {
			continue
		}
		lists(t, reflect.TypeOf(v), tree)
		again := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(b, again.Interface()); err != nil {
			t.Fatalf("%T: %v in %s", v, err, b)
		}
		want, _ := json.Marshal(v)
		if got, _ := json.Marshal(again.Elem().Interface()); strings.ReplaceAll(string(got), "[]", "null") != strings.ReplaceAll(string(want), "[]", "null") {
			t.Errorf("%T is read back as\n%s, want\n%s", v, got, want)
		}
		if short, err := listsJSON(v, true); err != nil || len(short) > len(b) || !json.Valid(short) {
			t.Errorf("%T, short: %s, %v", v, short, err)
		}
	}
	if b, err := listsJSON(control.Namespace{}, true); err != nil || strings.Contains(string(b), "buckets") {
		t.Errorf("a namespace without what only show tells: %s, %v", b, err)
	}
}

// lists looks for an array for every slice that a type has.
func lists(t *testing.T, of reflect.Type, tree any) {
	t.Helper()
	switch object, isObject := tree.(map[string]any); {
	case of.Kind() == reflect.Struct && isObject:
		for _, f := range reflect.VisibleFields(of) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Type.Kind() != reflect.Slice || f.Type.Elem().Kind() == reflect.Uint8 || name == "" {
				continue
			}
			list, ok := object[name].([]any)
			if !ok {
				t.Errorf("%v: %s is %v", of, name, object[name])
			}
			for _, e := range list {
				lists(t, f.Type.Elem(), e)
			}
		}
	case of.Kind() == reflect.Slice:
		elements, _ := tree.([]any)
		for _, e := range elements {
			lists(t, of.Elem(), e)
		}
	}
}

// TestErrorsAsJSON: under --json an error is one line of JSON, wherever the flag
// stands and whatever is wrong.
func TestErrorsAsJSON(t *testing.T) {
	t.Setenv("OVS_DATA", "")
	for _, c := range []struct {
		line, kind, says string
		code             int
	}{
		{"--json", "usage", "ovs needs a command", 2},
		{"vdisk --json", "usage", "needs a command", 2},
		{"vdisk lsit --json", "usage", "no command", 2},
		{"vdisk list --bogus --json", "usage", "unknown flag", 2},
		{"vdisk create a --size 1XiB --json=true", "usage", "unknown unit", 2},
		{"vdisk list --json", "usage", "no data directory named", 2},
		{"vdisk list extra --data /none/such --json", "usage", "wants no arguments", 2},
		{"vdisk list --data /none/such --json", "not-running", "ovs up is not running on /none/such", 1},
		{"inspect sco /none/such --json", "failed", "no such file", 1},
		{"up --nbd-clients 0 --data /none/such --json", "usage", "nobody could connect", 2},
		{"vdisk import /none/such a --data /none/such --json", "failed", "no such file", 1},
	} {
		var out, said bytes.Buffer
		code := run(strings.Fields(c.line), &out, &said)
		var f failure
		err := json.Unmarshal(said.Bytes(), &f)
		if err != nil || code != c.code || f.Code != code || f.Kind != c.kind || !strings.Contains(f.Error, c.says) || strings.Count(said.String(), "\n") != 1 || out.Len() > 0 {
			t.Errorf("ovs %s: exit code %d, %v, %s%s", c.line, code, err, &said, &out)
		}
	}
	a := &app{json: true, stderr: new(bytes.Buffer)}
	a.printError(errors.Join(fmt.Errorf("vDisk %q: %w", "a<b>", control.ErrNotFound), errors.New("two")))
	if got := fmt.Sprint(a.stderr); got != `{"error":"vDisk \"a<b>\": not found; two","kind":"not-found","code":1}`+"\n" {
		t.Error(got)
	}
	if wantsJSON([]string{"x", "--", "--json"}) || wantsJSON(nil) {
		t.Error("no --json is there")
	}
}
