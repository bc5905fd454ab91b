{{- define "spiced.name" -}}
{{- default (ternary .Release.Name (printf "%s-spiced" .Release.Name) (contains "spiced" .Release.Name)) .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "spiced.selector" -}}
app.kubernetes.io/name: spiced
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "spiced.labels" -}}
{{ include "spiced.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "spiced.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "spiced.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "spiced.tlsSecret" -}}
{{- .Values.tls.secret | default (printf "%s-tls" (include "spiced.name" .)) -}}
{{- end -}}

{{- define "spiced.ticketSecret" -}}
{{- .Values.sessionTickets.secret | default (printf "%s-tickets" (include "spiced.name" .)) -}}
{{- end -}}

{{/* The names of the Service, for the certificate. */}}
{{- define "spiced.dnsNames" -}}
{{- $name := include "spiced.name" . -}}
{{- $inside := list $name (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- .Values.tls.certManager.dnsNames | default $inside | toJson -}}
{{- end -}}

{{/* spicepod.yaml: the chart's settings, overridden by those in `pod`. */}}
{{- define "spiced.pod" -}}
{{- $listen := dict "http" "0.0.0.0:3000" "flight" "0.0.0.0:50051" "grpc" "0.0.0.0:50052" "probe" "0.0.0.0:8081" -}}
{{- if .Values.metrics.enabled }}{{ $_ := set $listen "metrics" "0.0.0.0:9090" }}{{ end -}}
{{- $secrets := list -}}
{{- $tls := dict "session_ticket_secret" "${env:SESSION_TICKET_SECRET}" -}}
{{- if eq .Values.tls.read "api" -}}
{{- $secrets = append $secrets (dict "name" "tls" "from" (printf "kubernetes:%s" (include "spiced.tlsSecret" .))) -}}
{{- $tls = merge $tls (dict "certificate" "${tls:tls.crt}" "key" "${tls:tls.key}") -}}
{{- else -}}
{{- $tls = merge $tls (dict "certificate_file" "/etc/spice/tls/tls.crt" "key_file" "/etc/spice/tls/tls.key") -}}
{{- end -}}
{{- $auth := dict -}}
{{- with .Values.clientCertificates }}{{ if ne .mode "none" -}}
{{- $tls = merge $tls (dict "client_auth_mode" .mode "client_auth_ca_file" (printf "/etc/spice/clients/%s" .key)) -}}
{{- with .identities }}{{ $_ := set $auth "mtls" (dict "identities" .) }}{{ end -}}
{{- end }}{{ end -}}
{{- if .Values.apiKeys.secret -}}
{{- $secrets = append $secrets (dict "name" "keys" "from" "file:/etc/spice/keys" "refresh_interval" "10s") -}}
{{- $keys := list -}}
{{- range .Values.apiKeys.readOnly }}{{ $keys = append $keys (printf "${keys:%s}:ro" .) }}{{ end -}}
{{- range .Values.apiKeys.readWrite }}{{ $keys = append $keys (printf "${keys:%s}:rw" .) }}{{ end -}}
{{- $_ := set $auth "api_key" (dict "keys" $keys) -}}
{{- end -}}
{{- with .Values.allowAnonymous }}{{ $_ := set $auth "allow_anonymous" . }}{{ end -}}
{{- $runtime := dict "listen" $listen "tls" $tls "sql" (dict "memory_limit" .Values.memoryLimit)
      "shutdown_delay" (printf "%ds" (int .Values.shutdown.delay)) "shutdown_timeout" (printf "%ds" (int .Values.shutdown.timeout)) -}}
{{- with $auth }}{{ $_ := set $runtime "auth" . }}{{ end -}}
{{- $pod := dict "version" "v1" "kind" "Spicepod" "name" (include "spiced.name" .) "runtime" $runtime -}}
{{- $pod = mustMergeOverwrite $pod (deepCopy .Values.pod) -}}
{{- with concat $secrets (.Values.pod.secrets | default list) }}{{ $_ := set $pod "secrets" . }}{{ end -}}
{{- toYaml $pod -}}
{{- end -}}
