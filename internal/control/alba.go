package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// ALBA is what the server manages of an ALBA backend. All methods are safe for
// concurrent use. What has changed is durable when a method returns nil. Errors
// match a kind of this package or are failures.
type ALBA interface {
	Status(ctx context.Context) (BackendStatus, error)
	Check(ctx context.Context) (Check, error)
	Resume(ctx context.Context) (Check, error)

	OSDs(ctx context.Context) ([]OSD, error)
	OSD(ctx context.Context, number uint64) (OSD, error)
	CheckPlace(dir string) error // of a disk to be added
	AddOSD(ctx context.Context, dir string) (uint64, error)
	ReplaceOSD(ctx context.Context, number uint64, dir string) (uint64, error)
	RemoveOSD(ctx context.Context, number uint64) error

	Namespaces(ctx context.Context) ([]NamespaceInfo, error)
	NamespaceInfo(ctx context.Context, name string) (NamespaceInfo, error)
	Objects(ctx context.Context, namespace, prefix, after string, fn func(Object) bool) error
	Object(ctx context.Context, namespace, name string) (Object, error)
	Manifest(ctx context.Context, namespace, name string) ([]byte, error)

	Presets(ctx context.Context) ([]Preset, error)
	StorageOf(ctx context.Context, namespace string) (Storage, error)
	// CreatePreset makes a preset of JSON. DeletePreset refuses one that is not there.
	CreatePreset(ctx context.Context, preset json.RawMessage, asDefault bool) error
	DeletePreset(ctx context.Context, name string) error
}

// objectsMax bounds the objects of one answer.
const objectsMax = 1000

// Requests of ALBA calls.
type (
	osdRequest struct {
		Number uint64 `json:"number,omitempty"`
		Dir    string `json:"dir,omitempty"` // absolute; "": the server's choice
		// AllowUnmounted takes it though it looks like a mount point with nothing mounted.
		AllowUnmounted bool `json:"allow_unmounted,omitempty"`
	}
	objectRequest struct {
		Namespace string `json:"namespace"` // or a vDisk's name
		Name      string `json:"name,omitempty"`
		Prefix    string `json:"prefix,omitempty"`
		After     string `json:"after,omitempty"`
		Limit     int    `json:"limit,omitempty"`
	}
	presetRequest struct {
		Preset  json.RawMessage `json:"preset"`
		Default bool            `json:"default,omitempty"`
	}
)

// errNotALBA is what ALBA calls get when there is none.
var errNotALBA = fmt.Errorf("%w: this data directory has the backend \"local\", which has no disks, namespaces, objects or presets", ErrInvalid)

// albaServer answers the ALBA calls.
type albaServer struct {
	ALBA
	host Host
}

// vdisks returns the names of vDisks by the namespace that they live in, which
// is called by the vDisk's id.
func (a albaServer) vdisks(ctx context.Context) (map[string]string, error) {
	list, err := a.host.List(ctx)
	names := make(map[string]string, len(list))
	for _, v := range list {
		names[v.ID.String()] = v.Name
	}
	return names, err
}

// namespace returns the namespace that is meant by its own name or a vDisk's,
// and that vDisk.
func (a albaServer) namespace(ctx context.Context, name string) (namespace, vdisk string, err error) {
	names, err := a.vdisks(ctx)
	if err != nil {
		return "", "", err
	}
	if vdisk, ok := names[name]; ok {
		return name, vdisk, nil
	}
	for namespace, vdisk := range names {
		if vdisk == name {
			return namespace, vdisk, nil
		}
	}
	return name, "", nil
}

func (a albaServer) namespaceList(ctx context.Context) ([]Namespace, error) {
	names, err := a.vdisks(ctx)
	if err != nil {
		return nil, err
	}
	all, err := a.Namespaces(ctx)
	list := make([]Namespace, len(all))
	for i, n := range all {
		n.Buckets, n.OSDs, n.Epochs = nil, nil, nil // for those who ask for one
		list[i] = Namespace{VDisk: names[n.Name], NamespaceInfo: n}
	}
	return list, err
}

func (a albaServer) namespaceShow(ctx context.Context, name string) (Namespace, error) {
	namespace, vdisk, err := a.namespace(ctx, name)
	if err != nil {
		return Namespace{}, err
	}
	n, err := a.NamespaceInfo(ctx, namespace)
	return Namespace{VDisk: vdisk, NamespaceInfo: n}, advise(err, "see `ovs alba namespace list`")
}

func (a albaServer) objectList(ctx context.Context, r objectRequest) (ObjectPage, error) {
	namespace, _, err := a.namespace(ctx, r.Namespace)
	if err != nil {
		return ObjectPage{}, err
	}
	limit := objectsMax
	if r.Limit > 0 {
		limit = min(r.Limit, limit)
	}
	page := ObjectPage{Objects: []Object{}}
	err = a.Objects(ctx, namespace, r.Prefix, r.After, func(o Object) bool {
		if len(page.Objects) == limit {
			page.More = true
			return false
		}
		page.Objects = append(page.Objects, o)
		return true
	})
	return page, advise(err, "see `ovs alba namespace list`")
}

func (a albaServer) object(ctx context.Context, r objectRequest) (Object, error) {
	namespace, _, err := a.namespace(ctx, r.Namespace)
	if err != nil {
		return Object{}, err
	}
	o, err := a.Object(ctx, namespace, r.Name)
	return o, advise(err, seeObjects(err, r.Namespace))
}

func (a albaServer) manifest(ctx context.Context, r objectRequest) ([]byte, error) {
	namespace, _, err := a.namespace(ctx, r.Namespace)
	if err != nil {
		return nil, err
	}
	b, err := a.Manifest(ctx, namespace, r.Name)
	return b, advise(err, seeObjects(err, r.Namespace))
}

// checkPlace refuses a directory that looks like a mount point with nothing mounted.
func (a albaServer) checkPlace(dir string, allow bool) error {
	if allow {
		return nil
	}
	return a.CheckPlace(dir)
}

func (a albaServer) addOSD(ctx context.Context, r osdRequest) (OSD, error) {
	if err := a.checkPlace(r.Dir, r.AllowUnmounted); err != nil {
		return OSD{}, err
	}
	number, err := a.AddOSD(ctx, r.Dir)
	if err != nil {
		return OSD{}, err
	}
	return a.OSD(ctx, number)
}

func (a albaServer) replaceOSD(ctx context.Context, r osdRequest) (OSD, error) {
	dir := r.Dir
	if dir == "" { // where the old one is
		if old, err := a.OSD(ctx, r.Number); err == nil {
			dir = old.Dir
		}
	}
	if err := a.checkPlace(dir, r.AllowUnmounted); err != nil {
		return OSD{}, err
	}
	number, err := a.ReplaceOSD(ctx, r.Number, r.Dir)
	if err != nil {
		return OSD{}, advise(err, "see `ovs alba osd list`")
	}
	return a.OSD(ctx, number)
}

// seeObjects is advice to who named an object that is not there.
func seeObjects(err error, namespace string) string {
	if errors.Is(err, ErrNoNamespace) {
		return "see `ovs alba namespace list`"
	}
	return "see `ovs alba object list " + namespace + "`"
}

// advise says what to do about an object that is not there, or not any more.
func advise(err error, what string) error {
	if err == nil {
		return nil
	}
	if wire, _ := toWire(err); wire.Kind != "not-found" && !errors.Is(err, ErrReplaced) {
		return err
	}
	return fmt.Errorf("%w; %s", err, what)
}

// handleALBA routes one ALBA call.
func handleALBA[Request, Result any](s *Server, mux *http.ServeMux, call string, fn func(albaServer, context.Context, Request) (Result, error)) {
	handle(s, mux, "alba/"+call, func(ctx context.Context, r Request, _ progressFunc) (Result, error) {
		if s.opt.ALBA == nil {
			var none Result
			return none, errNotALBA
		}
		return fn(albaServer{s.opt.ALBA, s.opt.Host}, ctx, r)
	})
}

func (s *Server) albaRoutes(mux *http.ServeMux) {
	type none = struct{}
	handleALBA(s, mux, "status", func(a albaServer, ctx context.Context, _ none) (BackendStatus, error) { return a.Status(ctx) })

	handleALBA(s, mux, "check", func(a albaServer, ctx context.Context, _ none) (Check, error) { return a.Check(ctx) })
	handleALBA(s, mux, "resume-deletion", func(a albaServer, ctx context.Context, _ none) (Check, error) { return a.Resume(ctx) })

	handleALBA(s, mux, "osd/list", func(a albaServer, ctx context.Context, _ none) ([]OSD, error) { return a.OSDs(ctx) })
	handleALBA(s, mux, "osd/show", func(a albaServer, ctx context.Context, r osdRequest) (OSD, error) {
		o, err := a.OSD(ctx, r.Number)
		return o, advise(err, "see `ovs alba osd list`")
	})
	handleALBA(s, mux, "osd/add", albaServer.addOSD)
	handleALBA(s, mux, "osd/replace", albaServer.replaceOSD)
	handleALBA(s, mux, "osd/remove", func(a albaServer, ctx context.Context, r osdRequest) (done, error) {
		return done{}, advise(a.RemoveOSD(ctx, r.Number), "see `ovs alba osd list`")
	})

	handleALBA(s, mux, "namespace/list", func(a albaServer, ctx context.Context, _ none) ([]Namespace, error) { return a.namespaceList(ctx) })
	handleALBA(s, mux, "namespace/show", func(a albaServer, ctx context.Context, r nameRequest) (Namespace, error) {
		return a.namespaceShow(ctx, r.Name)
	})
	handleALBA(s, mux, "object/list", albaServer.objectList)
	handleALBA(s, mux, "object/show", albaServer.object)
	handleALBA(s, mux, "object/manifest", albaServer.manifest)

	handleALBA(s, mux, "preset/list", func(a albaServer, ctx context.Context, _ none) ([]Preset, error) { return a.Presets(ctx) })
	handleALBA(s, mux, "preset/create", func(a albaServer, ctx context.Context, r presetRequest) (done, error) {
		return done{}, a.CreatePreset(ctx, r.Preset, r.Default)
	})
	handleALBA(s, mux, "preset/delete", func(a albaServer, ctx context.Context, r nameRequest) (done, error) {
		return done{}, advise(a.DeletePreset(ctx, r.Name), "see `ovs alba preset list`")
	})
}
