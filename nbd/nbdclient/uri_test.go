package nbdclient_test

import (
	"errors"
	"testing"

	"openvstorage/nbd/nbdclient"
)

func TestParseURI(t *testing.T) {
	for uri, want := range map[string]nbdclient.URI{
		"nbd://h/a":                       {Network: "tcp", Address: "h:10809", Export: "a"},
		"nbds://h:1/team%20a/disk":        {Network: "tcp", Address: "h:1", Export: "team a/disk", TLS: true},
		"nbds://[::1]":                    {Network: "tcp", Address: "[::1]:10809", TLS: true},
		"nbd+unix:///a?socket=/x%20y/s":   {Network: "unix", Address: "/x y/s", Export: "a"},
		"nbds+unix:///?socket=/s&other=1": {Network: "unix", Address: "/s", TLS: true},
	} {
		if got, err := nbdclient.ParseURI(uri); err != nil || got != want {
			t.Errorf("%s: %+v %v", uri, got, err)
		}
	}
	for _, uri := range []string{"", "http://h/a", "nbd:///a", "nbd+unix:///a", "nbd://h:x/a", "nbd://%zz"} {
		if got, err := nbdclient.ParseURI(uri); err == nil {
			t.Errorf("%s: %+v", uri, got)
		}
	}
	if _, err := nbdclient.DialURI(t.Context(), "nbds://127.0.0.1:1/a", nbdclient.Options{}); !errors.Is(err, nbdclient.ErrNeedsTLS) {
		t.Errorf("%v", err)
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("nbds://h:1/a")
	f.Add("nbd+unix:///a?socket=/s")
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := nbdclient.ParseURI(uri)
		if err == nil && (u.Address == "" || u.Network == "") {
			t.Errorf("%q: %+v", uri, u)
		}
	})
}
