// Prints the result of GET URL with Go and the roots in the file ROOT: message.go ROOT URL.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	root, _ := os.ReadFile(os.Args[1])
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	response, err := client.Get(os.Args[2])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(response.Status)
}
