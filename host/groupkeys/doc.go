// Package groupkeys reads and swaps keys of an Arakoon group for whoever keeps records there.
// Its Keys are the store of packages trust and arakoon/roster, whose records are in the config
// group. Package registrykeys gives it the errors that the registry knows.
package groupkeys
