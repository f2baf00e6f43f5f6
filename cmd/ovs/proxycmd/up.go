package proxycmd

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"openvstorage/host"
)

// AddUpFlags adds the flags of `ovs up` about proxies.
func AddUpFlags(c *cobra.Command, o *host.Options) {
	flags := c.Flags()
	flags.StringSliceVar(&o.Proxies, "proxies", nil, "with --backend proxy: `socket` of the process that has the backend, at each start; may be given again, in order of preference")
	flags.StringVar(&o.Proxy, "proxy", "", "let other processes use the backend by this unix `socket`, which is made: those of the same user")
}

// CheckUp refuses flags that cannot work, and makes paths absolute.
func CheckUp(o *host.Options) (err error) {
	if o.Backend == host.BackendProxy && len(o.Proxies) == 0 || len(o.Proxies) > host.ProxiesMax {
		return fmt.Errorf("--backend proxy: give --proxies SOCKET, once to %d times", host.ProxiesMax)
	}
	if o.Proxy != "" {
		if o.Proxy, err = filepath.Abs(o.Proxy); err != nil {
			return err
		}
	}
	for i := range o.Proxies {
		if o.Proxies[i], err = filepath.Abs(o.Proxies[i]); err != nil {
			return err
		}
	}
	return nil
}
