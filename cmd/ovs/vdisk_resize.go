package main

import (
	"github.com/spf13/cobra"

	"openvstorage/internal/size"
)

func (cmds vdiskCommands) resize() *cobra.Command {
	var bytes size.Bytes
	c := &cobra.Command{
		Use:               "resize NAME --size SIZE",
		Short:             "grow a vDisk",
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: func(c *cobra.Command, args []string) error {
			if bytes == 0 {
				return usagef("%s needs --size, for instance --size 20GiB", c.CommandPath())
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			if err := client.Resize(c.Context(), args[0], uint64(bytes)); err != nil {
				return err
			}
			return cmds.done("resized", args[0])
		},
	}
	c.Flags().Var(&bytes, "size", "new size, at least the present one")
	return c
}
