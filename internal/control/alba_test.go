package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"openvstorage/internal/control"
	"openvstorage/internal/control/controltest"
)

// fakeALBA answers what the test asks for; all else is nobody's business here.
type fakeALBA struct {
	control.ALBA
	objects int
	asked   string // the namespace
}

func (f *fakeALBA) Namespaces(context.Context) ([]control.NamespaceInfo, error) {
	return []control.NamespaceInfo{{Name: "loose"}}, nil
}

func (f *fakeALBA) NamespaceInfo(_ context.Context, name string) (control.NamespaceInfo, error) {
	f.asked = name
	if name == "none" {
		return control.NamespaceInfo{}, fmt.Errorf("namespace %q: %w", name, control.ErrNoNamespace)
	}
	return control.NamespaceInfo{Name: name}, nil
}

func (f *fakeALBA) Objects(_ context.Context, _, _, after string, fn func(control.Object) bool) error {
	for i := range f.objects {
		name := fmt.Sprintf("o%05d", i)
		if name > after && !fn(control.Object{Name: name}) {
			return nil
		}
	}
	return nil
}

func (f *fakeALBA) OSD(context.Context, uint64) (control.OSD, error) {
	return control.OSD{}, fmt.Errorf("disk 9: %w", control.ErrNotFound)
}

func (f *fakeALBA) CreatePreset(_ context.Context, text json.RawMessage, _ bool) error {
	f.asked = string(text)
	return fmt.Errorf("preset: %w", control.ErrBusy)
}

func (f *fakeALBA) DeletePreset(_ context.Context, name string) error {
	return fmt.Errorf("preset %q: %w", name, control.ErrNotFound)
}

func (f *fakeALBA) ReplaceOSD(context.Context, uint64, string) (uint64, error) {
	return 0, fmt.Errorf("disk 9: %w", control.ErrReplaced)
}

func (f *fakeALBA) Object(_ context.Context, namespace, _ string) (control.Object, error) {
	if namespace == "none" {
		return control.Object{}, fmt.Errorf("%w", control.ErrNoNamespace)
	}
	return control.Object{}, fmt.Errorf("object: %w", control.ErrNotFound)
}

// TestWithoutALBA: the other backend says so, in a kind of its own.
func TestWithoutALBA(t *testing.T) {
	_, c, _ := serve(t, &controltest.Host{}, nil)
	if _, err := c.BackendStatus(t.Context()); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("status without ALBA: %v", err)
	}
	if _, err := c.AddOSD(t.Context(), "/x", false); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("add without ALBA: %v", err)
	}
}

func TestALBA(t *testing.T) {
	ctx, host, fake := t.Context(), &controltest.Host{}, &fakeALBA{objects: 2500}
	v, err := host.Create(ctx, "disk1", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	_, c, _ := serve(t, host, func(o *control.Options) { o.ALBA = fake })

	// A namespace goes by its own name and by its vDisk's.
	for _, name := range []string{"disk1", v.ID.String()} {
		if n, err := c.Namespace(ctx, name); err != nil || n.VDisk != "disk1" || n.Name != v.ID.String() || fake.asked != v.ID.String() {
			t.Errorf("namespace %s: %+v, %v, asked for %s", name, n, err, fake.asked)
		}
	}
	if list, err := c.Namespaces(ctx); err != nil || len(list) != 1 || list[0].VDisk != "" || list[0].Name != "loose" {
		t.Errorf("namespaces: %+v, %v", list, err)
	}

	// Lists are bounded, say so, and can be gone on with.
	for _, p := range []struct {
		after string
		limit int
		want  int
		more  bool
	}{{"", 0, 1000, true}, {"", 5000, 1000, true}, {"", 7, 7, true}, {"o01999", 0, 500, false}, {"o02499", 0, 0, false}} {
		page, err := c.Objects(ctx, "disk1", "", p.after, p.limit)
		if err != nil || len(page.Objects) != p.want || page.More != p.more {
			t.Errorf("objects after %q, limit %d: %d, more %v, %v", p.after, p.limit, len(page.Objects), page.More, err)
		}
	}

	// Errors keep their kind.
	if _, err := c.Namespace(ctx, "none"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("namespace that is not there: %v", err)
	}
	if _, err := c.OSD(ctx, 9); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("disk that is not there: %v", err)
	}
	if err := c.DeletePreset(ctx, "none"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("delete a preset that is not there: %v", err)
	}
	if err := c.CreatePreset(ctx, json.RawMessage(`{"name":"p"}`), false); !errors.Is(err, control.ErrBusy) || fake.asked != `{"name":"p"}` {
		t.Errorf("preset in use: %v, asked for %s", err, fake.asked)
	}
	// Advice goes with what is not there, or was replaced before, and says where to look.
	if _, err := c.ReplaceOSD(ctx, 9, "/x", true); !errors.Is(err, control.ErrExists) || !strings.HasSuffix(err.Error(), "; see `ovs alba osd list`") {
		t.Errorf("disk that was replaced before: %v", err)
	}
	for name, says := range map[string]string{"none": "; see `ovs alba namespace list`", "disk1": "; see `ovs alba object list disk1`"} {
		if _, err := c.Object(ctx, name, "o"); !errors.Is(err, control.ErrNotFound) || !strings.HasSuffix(err.Error(), says) {
			t.Errorf("object of %s: %v", name, err)
		}
	}
}
