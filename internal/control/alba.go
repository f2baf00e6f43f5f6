package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// ALBA is what the server manages of an ALBA backend. All methods are safe for
// concurrent use. What a method has changed is durable when it returns nil. Errors match
// a kind of this package, or are failures.
//
// For a data directory without ALBA all calls fail with an error that matches ErrInvalid
// and says so. Calls also take the name of a vDisk for that of its namespace.
type ALBA interface {
	Backend
	Disks
	Namespaces
	Objects
	Presets
}

// errNotALBA is what ALBA calls get when there is none.
var errNotALBA = fmt.Errorf("%w: the backend of this data directory has no disks, namespaces, objects or presets to manage here: it is \"local\", or in another process (\"proxy\")", ErrInvalid)

// albaServer answers the ALBA calls.
type albaServer struct {
	ALBA
	host Host
}

// vdisks returns the names of vDisks by the namespaces that they live in. A namespace is
// called by its vDisk's id.
func (a albaServer) vdisks(ctx context.Context) (map[string]string, error) {
	list, err := a.host.List(ctx)
	names := make(map[string]string, len(list))
	for _, v := range list {
		names[v.ID.String()] = v.Name
	}
	return names, err
}

// namespace returns the namespace that is called so, or is that of the vDisk called so,
// and its vDisk.
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

// advise adds to an error what to do about an object that is not there, or not any more.
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
	s.backendRoutes(mux)
	s.osdRoutes(mux)
	s.namespaceRoutes(mux)
	s.objectRoutes(mux)
	s.presetRoutes(mux)
}
